# SPDX-License-Identifier: Apache-2.0
"""The AMX kernels on processors without AMX: the tile instructions emulated, the sums bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_emulated_tiles_have_the_sums_of_the_portable_kernels(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    assert compiler is not None, "there is no C++ compiler: install one, or name it in the variable CXX"
    csrc = ROOT / "scn_fx" / "csrc"
    parts = (
        "core/failures.cpp",
        "core/fork.cpp",
        "core/geometry.cpp",
        "core/parallel.cpp",
        "cpu/kernels/kernels_portable.cpp",
        "cpu/kernels/pack.cpp",
        "cpu/maps/kernel_map.cpp",
        "cpu/maps/reach.cpp",
        "cpu/maps/site_index.cpp",
        "cpu/maps/site_set.cpp",
    )
    sources = [Path(__file__).with_name("amx_emulation.cpp"), *(csrc / part for part in parts)]
    program = tmp_path / "amx_emulation"
    options = [
        "-std=c++17",
        "-O2",
        "-pthread",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I",
        csrc,
        "-I",
        csrc / "include",
    ]
    built = subprocess.run([compiler, *options, *sources, "-o", program], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(" layers, 0 wrong\n")
