# SPDX-License-Identifier: Apache-2.0
"""Whatever the compiled functions are called with, they refuse it with an error of scn-fx.

Each call runs in a process of its own: several of them ended the process once, or wrote over its memory.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from scn_fx import _core
from scn_fx.errors import ArgumentError, BoundError, SiteError
from tests.core.activations import NONE

SITE = "np.zeros((1, 4), np.int32)"
CALLS = {
    # divided by zero
    "stride of none": (f"conv_map({SITE}, 1, FOUR, FOUR, THREE, NONE, ONE, ONE, False, 9)",
                       "SiteError: conv_map: stride is"),
    "no channels": ("convolution(np.zeros((1, 0), np.float32), np.zeros((2**33, 1, 1, 1, 0), np.float32), "
                    "None, ROW, 'fp32', 'fp32', ('None', 0.0), 0.0, None)",
                    "SiteError: convolution: features must have 1 to"),
    # aborted
    "threads": ("measure_peak('fp32', 100000, 0.01)", "ArgumentError: threads must be 1 to 1024"),
    # did not end
    "endless": ("measure_peak('int8', 1, float('inf'))", "ArgumentError: seconds must be"),
    # took what memory there is
    "dense map": (f"scatter_dense(np.ones((1, 64), np.float32), {SITE}, 4, (2**10, 2**14, 2**14))",
                  "MemoryLimitError: scatter_dense: its dense map would take"),
    "kernel": ("subm_map(LINE, 1, "
               "(2000, 2000, 300000), (21, 21, 23), (1, 1, 1))",
               "MemoryLimitError: subm_map: its kernel map would take"),
    "reached cells": ("conv_map(LINE, 1, "
                      "(512, 512, 2**21), (512, 512, 2**21), (31, 31, 31), ONE, (31, 31, 31), ONE, False, 9)",
                      "MemoryLimitError: conv_map: the cells that it reaches would take"),
    # were taken for something else
    "batch": (f"scatter_dense(np.ones((1, 1), np.float32), {SITE}, -1, (2, 2, 2))",
              "ArgumentError: scatter_dense: batch_size must be 1 to 2147483647, got -1"),
    "kernel of none": (f"subm_map({SITE}, 1, FOUR, (-1, -1, -1), ONE)", "SiteError: subm_map: kernel_size"),
    "dilation": (f"subm_map({SITE}, 1, FOUR, THREE, (2**30, 1, 1))", "SiteError: subm_map: "),
    "dilation of none": (f"subm_map({SITE}, 1, FOUR, THREE, NONE)", "SiteError: subm_map: dilation"),
    "padding": (f"conv_map({SITE}, 1, FOUR, FOUR, THREE, ONE, (2**31 - 1,) * 3, ONE, False, 9)",
                "SiteError: conv_map: padding"),
    "inverse": ("inverse_map(ROW, -1)", "SiteError: inverse_map: the number of input sites"),
    "entries": ("inverse_map(np.int32([[-5]]), 1)",
                "SiteError: inverse_map: the kernel map reads input row -5"),
    "pairs": ("inverse_map(np.zeros((2, 1), np.int32), 1)", "SiteError: inverse_map: .*no inverse"),
    "numbers": (f"subm_map({SITE}, 2**70, FOUR, THREE, ONE)", "ArgumentError: subm_map: batch_size"),
    "shapes": (f"subm_map({SITE}, 1, (4, 4, 2**40), THREE, ONE)",
               "ArgumentError: spatial_shape is 1099511627776"),
    "cells": (f"subm_map({SITE}, 2**31 - 1, (2**20, 2**20, 4), THREE, ONE, name='deep')",
              "SiteError: deep: a grid of .*63 bits"),
    "bytes": ("place_spans([(2**63 - 1, 0, 1)] * 2)", "MemoryLimitError"),
    "less than nothing": ("place_spans([(-1000, 0, 1)])", "ArgumentError"),
    "broadcast": ("add(*[np.broadcast_to(np.float32(0), (2**30, 2**10))] * 2, "
                  "'fp32', 'fp32', ('None', 0.0), 0, 0)",
                  r"SiteError: add: the first input .*without gaps in C order"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CALLS))
def test_refused_in_a_process_of_its_own(case: str) -> None:
    call, message = CALLS[case]
    code = f"""
import os, re, resource, sys
import numpy as np
from scn_fx import _core
from scn_fx.errors import ScnError
if "asan" not in os.environ.get("LD_PRELOAD", ""):  # whose shadow memory is larger
    resource.setrlimit(resource.RLIMIT_AS, (10 << 30, 10 << 30))
NONE, ONE, THREE, FOUR = ((n,) * 3 for n in (0, 1, 3, 4))
ROW = np.zeros((1, 1), np.int32)
LINE = np.stack([np.zeros(300000)] * 3 + [np.arange(300000)], 1).astype(np.int32)
try:
    _core.{call}
except ScnError as error:
    text = f"{{type(error).__name__}}: {{error}}"
    sys.exit(0 if re.match({message!r}, text) else text)
sys.exit("not refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("threads", [-1, 1025, 2**40])
def test_numbers_of_threads(threads: int) -> None:
    sites = np.zeros((1, 4), np.int32)
    with pytest.raises(ArgumentError, match=rf"threads must be 0 to 1024 .*got {threads}"):
        _core.subm_map(sites, 1, (2, 2, 2), (3, 3, 3), (1, 1, 1), threads=threads)
    assert _core.subm_map(sites, 1, (2, 2, 2), (3, 3, 3), (1, 1, 1), threads=5).shape == (1, 27)


def test_arrays_with_gaps_are_refused() -> None:
    features, sites = np.zeros((4, 8), np.float32), np.zeros((4, 8), np.int32)
    with pytest.raises(SiteError, match=r"indices .* \[4, 4\] must lie without gaps"):
        _core.subm_map(sites[:, ::2], 1, (2, 2, 2), (3, 3, 3), (1, 1, 1))
    with pytest.raises(SiteError, match=r"second input .*without gaps"):
        _core.add(features, features.T.copy().T, "fp32", "fp32", NONE, 0.0, 0.0)


def test_a_nameless_operator_has_a_message() -> None:
    with pytest.raises(ArgumentError, match=r"^This dense map: batch_size"):
        _core.scatter_dense(np.ones((1, 1), np.float32), np.zeros((1, 4), np.int32), 0, (2, 2, 2), name="")


def test_bounds_hold_before_sites_are_listed() -> None:
    corner = np.array([[0, z, y, x] for z in (0, 30) for y in (0, 30) for x in (0, 30)], np.int32)
    arguments = (40, 40, 40), (40, 40, 40), (31, 31, 31), (1,) * 3, (15,) * 3, (1,) * 3, False
    with pytest.raises(BoundError, match="output sites, but output_bound is 5"):
        _core.conv_map(corner, 1, *arguments, 5)
