# SPDX-License-Identifier: Apache-2.0
"""The C++ programs of the tests and the example: built once for all tests and processes that run them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

__all__ = ["ROOT", "find_cmake", "program"]

ROOT = Path(__file__).parents[1]


def find_cmake() -> str:
    """CMake of this environment or of the system."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=places)
    assert cmake is not None, "CMake is missing; the extra 'test' brings it: pip install '.[test]'"
    return cmake


@cache
def _build() -> Path:
    """The folder of the programs. SCN_FX_CPP_BUILD names one that is built already, with a sanitizer say."""
    given = os.environ.get("SCN_FX_CPP_BUILD")
    if given:
        return Path(given)
    # Kept, so that the next run compiles what has changed alone.
    folder = ROOT / "build" / "programs"
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-DSCN_FX_PYTHON=OFF", "-DSCN_FX_CUDA=off", "-DSCN_FX_EXAMPLES=ON", "-DSCN_FX_CHECKS=ON"]
    options.append("-DSCN_FX_SHARED=ON")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building
        for command in (
            [find_cmake(), "-S", ROOT, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", *options],
            [find_cmake(), "--build", folder, "--parallel", "2"],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder


def program(name: str) -> Path:
    """The path of `name`, as "run_onnx" or "replay_onnx", built by CMake with this machine's compiler."""
    return _build() / name
