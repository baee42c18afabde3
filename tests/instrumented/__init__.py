# SPDX-License-Identifier: Apache-2.0
"""The compiled module and the C++ programs of the tests, built once more with a sanitizer or with counters.

`build` makes them in a folder of their own, `environment` has every Python process load that module and every
test run those programs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cpp_programs import ROOT, find_cmake

__all__ = ["build", "environment"]


def _nanobind() -> str:
    """Where nanobind's CMake files are; it is a requirement of the build, not of the package."""
    command = [sys.executable, "-m", "nanobind", "--cmake_dir"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"The module needs nanobind: {sys.executable} -m pip install nanobind")
    return done.stdout.strip()


def build(name: str, *options: str, python: bool = True) -> Path:
    """The folder build/`name`, with these options of CMake; kept, so that the next run builds what changed.

    `python=False` leaves the module out. SystemExit has the compiler's words.
    """
    folder = ROOT / "build" / name
    configured = [
        "-DCMAKE_BUILD_TYPE=Release",
        "-DSCN_FX_CUDA=off",
        "-DSCN_FX_CHECKS=ON",
        "-DSCN_FX_EXAMPLES=ON",
        f"-DSCN_FX_PYTHON={'ON' if python else 'OFF'}",
        f"-DPython_EXECUTABLE={sys.executable}",
        *options,
    ]
    if python:
        configured.append(f"-Dnanobind_DIR={_nanobind()}")
    for command in (
        [find_cmake(), "-S", str(ROOT), "-B", str(folder), *configured],
        [find_cmake(), "--build", str(folder), "--parallel", str(os.cpu_count())],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{done.stdout}\n{done.stderr}")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Variables with which Python processes load the module of `folder`, and tests its programs."""
    (core,) = folder.glob("_core*.so")
    return {
        "SCN_FX_CORE": str(core),
        "SCN_FX_CPP_BUILD": str(folder),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).with_name("site")), str(ROOT)]),
    }
