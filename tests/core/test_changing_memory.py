# SPDX-License-Identifier: Apache-2.0
"""Another thread writes to the arrays during the call: what was checked is what is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

CALLS = {
    "scatter_dense": "c.scatter_dense(x, sites, 1, (64, 64, 64))",
    "subm_map": "c.subm_map(sites, 1, (16, 16, 16), (3, 3, 3), (1, 1, 1))",
    "conv_map": "c.conv_map(sites, 1, *numbers, False, 4096)",
    "inverse_map": "c.inverse_map(rows, 2000)",
    "convolution fp32": "c.convolution(x, weight, bias, rows, 'fp32', 'fp32', ('ReLU', 0.0), 0.0, None)",
    "convolution fp16": "c.convolution(x, weight, bias, rows, 'fp16', 'fp16', ('ReLU', 0.0), 0.0, None)",
    "convolution int8": "c.convolution(x, weight, bias, rows, 'int8', 'int8', ('ReLU', 0.0), 3.0, ranges)",
    "add int8": "c.add(x, x2, 'int8', 'int8', ('None', 0.0), 3.0, 3.0)",
    "add fp16": "c.add(x, x2, 'fp16', 'fp16', ('None', 0.0), 0.0, 0.0)",
}

CODE = """
import threading, time
import numpy as np
from scn_fx import _core as c
from scn_fx.errors import ScnError

rng = np.random.default_rng(0)
cell = rng.permutation(16**3)[:2000]
sites = np.stack([cell * 0, cell // 256, cell // 16 % 16, cell % 16], 1).astype(np.int32)
rows = np.full((2000, 8), -1, np.int32)
rows[:, 0] = np.arange(2000)
x, x2 = (rng.normal(size=(2000, 16)).astype(np.float32) for _ in range(2))
weight = rng.normal(size=(16, 2, 2, 2, 16)).astype(np.float32)
bias, ranges = np.zeros(16, np.float32), np.ones(16, np.float32)
numbers = [(n,) * 3 for n in (16, 8, 3, 2, 1, 1)]
good = [a.copy() for a in (sites, rows, x, x2, weight, bias, ranges)]
over = False

def scribble():
    wild = np.array([-1, 2**31 - 1, -2**31, 2**30, 4000, 0x7fc00000], np.int32)
    while not over:
        for array in (sites, rows, x, x2, weight, bias, ranges):
            at = rng.integers(0, array.size, 200)
            array.reshape(-1).view(np.int32)[at] = rng.choice(wild, 200)
        time.sleep(0.001)
        for array, fine in zip((sites, rows, x, x2, weight, bias, ranges), good):
            array[...] = fine
        time.sleep(0.001)

thread = threading.Thread(target=scribble)
thread.start()
done = refused = 0
try:
    for _ in range(COUNT):
        try:
            result = CALL
            done += 1
            if INT8:
                assert np.isfinite(result).all()
        except ScnError:
            refused += 1
finally:
    over = True
    thread.join()
assert done + refused == COUNT
"""


@pytest.mark.parametrize("call", list(CALLS))
def test_arrays_that_change_during_the_call(call: str) -> None:
    code = CODE.replace("CALL", CALLS[call]).replace("COUNT", "150").replace("INT8", str("int8" in call))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-800:])
