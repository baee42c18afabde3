# SPDX-License-Identifier: Apache-2.0
"""A child process made by fork() uses the operators, whatever the parent's threads were doing."""

from __future__ import annotations

import subprocess
import sys

import pytest

PREPARE = """
import os, sys, threading, time
import numpy as np
from scn_fx import _core as c

cell = np.random.default_rng(0).permutation(40**3)[:20000]
sites = np.stack([cell * 0, cell // 1600, cell // 40 % 40, cell % 40], 1).astype(np.int32)

def run(threads=3):
    return c.subm_map(sites, 1, (40, 40, 40), (3, 3, 3), (1, 1, 1), threads=threads)

expected = run()

def in_child(work):
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, status
            return
        time.sleep(0.05)
    os.kill(child, 9)
    sys.exit("the child hangs")

def same():
    for threads in (3, 3, 1, 2):
        assert (run(threads) == expected).all()
"""

BODIES = {
    "idle": "in_child(same)\nsame()",
    "grandchild": "in_child(lambda: (same(), in_child(same), same()))",
    "while other threads run operators": """
over = False
def busy(threads):
    while not over:
        run(threads)
threads = [threading.Thread(target=busy, args=(n,)) for n in (2, 3)]
for thread in threads: thread.start()
for _ in range(10):
    in_child(same)
over = True
for thread in threads: thread.join()
same()
""",
    "exits without using them": """
for _ in range(3):
    child = os.fork()
    if not child:
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
""",
    "multiprocessing": """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    for found in pool.map(run, [3, 3, 2, 1], chunksize=1):
        assert (found == expected).all()
same()
""",
    "torch": """
import torch, scn_fx.ops
torch.set_num_threads(1)
op = lambda: torch.ops.scn_fx.subm_map(
    torch.from_numpy(sites), name="c", batch_size=1, spatial_shape=[40] * 3, kernel_size=[3] * 3,
    dilation=[1] * 3)
op()
def work():
    assert (op().numpy() == expected).all()
in_child(work)
""",
}


@pytest.mark.parametrize("body", list(BODIES))
def test_forked(body: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREPARE + BODIES[body]],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr[-800:])


def test_threads_that_cannot_start() -> None:
    """Where the system allows no more threads, the call says so, and a call with fewer works."""
    code = f"""{PREPARE}
import resource
from scn_fx.errors import ArgumentError
# each stack takes a part of the address space that is left
threading.stack_size(0)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
for call in (lambda: run(1000), lambda: c.measure_peak("fp32", 1000, 0.001)):
    try:
        call()
    except (ArgumentError, MemoryError) as error:
        assert "threads" in str(error) or isinstance(error, MemoryError), error
    else:
        sys.exit("not refused")
assert (run(2) == expected).all()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-800:])
