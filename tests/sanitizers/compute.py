# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's compute-sanitizer over a chosen few of the tests that need a GPU.

memcheck looks for accesses outside of what was allocated, racecheck for threads of a block that meet in
shared memory. Both slow kernels down many times: the tests are those that run each kernel, on small frames.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cpp_programs import ROOT

__all__ = ["TESTS", "TOOLS", "find_tool", "run"]

TOOLS = ("memcheck", "racecheck")
TESTS = (
    "tests/gpu/test_cuda_convolve.py::test_the_usual_layers",
    "tests/gpu/test_cuda_convolve.py::test_without_a_name_the_kernel_is_the_first_that_suits",
    "tests/gpu/test_cuda_convolve.py::test_repeated_runs_are_timed_and_change_nothing",
    "tests/gpu/test_cuda_pairs.py::test_most_blocks_have_nothing_to_do",
    "tests/gpu/test_cuda_kernel_maps.py",
    "tests/gpu/test_cuda_operators.py::test_maps_are_those_of_the_cpu",
    "tests/gpu/test_cuda_operators.py::test_add",
    *(
        f"tests/gpu/test_cuda_engine.py::test_wide_int8_networks_have_the_bits_of_the_cpu[{n}]"
        for n in range(8)
    ),
    "tests/gpu/test_cuda_engine.py::test_batches_of_different_sizes_through_one_engine",
    "tests/gpu/test_cuda_errors.py",
)
"""Every kernel of the registry and of the maps, whole frames with and without a graph, and refused frames."""
_FOUND = 86
"""What the tool exits with if it found something; pytest's own codes are 0 to 5."""


def find_tool() -> str:
    """compute-sanitizer on PATH, or of the toolkit that CUDA_HOME, CUDA_PATH or /usr/local/cuda is.

    SystemExit says what to install where there is none.
    """
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [str(Path(home) / part) for home in homes if home for part in ("bin", "compute-sanitizer")]
    found = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))
    if found is None:
        raise SystemExit(
            "compute-sanitizer is neither on PATH nor in CUDA_HOME. It is part of the CUDA toolkit: install "
            "that, or set CUDA_HOME to its folder."
        )
    return found


def _check_gpu() -> None:
    """SystemExit says why, where the tests cannot run."""
    from scn_fx import _core

    problem = str(_core.cuda_info()["problem"])
    if problem:
        raise SystemExit(f"The tests under compute-sanitizer need a GPU that this build can use. {problem}")


def run(arguments: Sequence[str]) -> int:
    """Each tool over the chosen tests, or over what pytest's `arguments` choose; 0 if none found anything.

    SystemExit where the tool or a GPU is missing.
    """
    tool = find_tool()
    _check_gpu()
    # few examples; no allocator of torch's between a kernel and the memory that it may touch
    environment = {**os.environ, "SCN_FX_EXAMPLES": "5", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *(arguments or TESTS)]
    wrong = []
    for name in TOOLS:
        print(f"== {name}", flush=True)
        # refused frames and lookups of devices are answers, not findings
        options = ["--tool", name, "--error-exitcode", str(_FOUND), "--report-api-errors", "no"]
        code = subprocess.run([tool, *options, *tests], cwd=ROOT, env=environment).returncode
        if code:
            wrong.append(f"{name}: {'it found something' if code == _FOUND else f'exit code {code}'}")
    print("; ".join(wrong) or f"{', '.join(TOOLS)}: nothing found")
    return int(bool(wrong))
