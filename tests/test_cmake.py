# SPDX-License-Identifier: Apache-2.0
"""The choice of SCN_FX_CUDA: what CMake decides, and what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def configure(tmp_path: Path, gpu: str | None, options: list[str], **variables: str) -> tuple[int, str]:
    """Exit status and words of CMake, beside a GPU of this compute capability and an nvcc that only lists."""
    smi = script(tmp_path / "nvidia-smi", f"echo {gpu}" if gpu else "exit 9")
    nvcc = script(tmp_path / "nvcc", '[ "$1" = --list-gpu-arch ] && echo "compute_80\ncompute_90"')
    known = {name: value for name, value in os.environ.items() if not name.startswith("SCN_FX_CUDA")}
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=places)
    assert cmake is not None, "CMake is missing; the extra 'test' brings it: pip install '.[test]'"
    tools = [f"-DSCN_FX_NVIDIA_SMI={smi}", f"-DSCN_FX_NVCC={nvcc}", "-DSCN_FX_PYTHON=OFF"]
    command = [cmake, "-S", ROOT, "-B", tmp_path / "build", *tools, *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**known, **variables})
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("gpu", "options", "variables", "status", "message"),
    [
        (None, [], {}, 0, "CPU only (no NVIDIA GPU found here; SCN_FX_CUDA=on builds it anyway)"),
        ("9.0", [], {"SCN_FX_CUDA": "off"}, 0, "CPU only (SCN_FX_CUDA=off)"),
        ("9.0", [], {}, 0, "CPU only ("),  # the compiler of this test compiles nothing
        (None, [], {"SCN_FX_CUDA": "on"}, 1, "SCN_FX_CUDA=on, but the CUDA backend cannot be built:"),
        (None, ["-DSCN_FX_CUDA=off"], {"SCN_FX_CUDA": "on"}, 0, "CPU only (SCN_FX_CUDA=off)"),
        (None, ["-DSCN_FX_CUDA=maybe"], {}, 1, "SCN_FX_CUDA must be auto, on or off, got 'maybe'."),
        (None, ["-DSCN_FX_CUDA=on", "-DSCN_FX_NVCC=/bin/false"], {}, 1, "no CUDA compiler: nvcc is neither"),
    ],
)
def test_the_choice(
    tmp_path: Path, gpu: str | None, options: list[str], variables: dict[str, str], status: int, message: str
) -> None:
    found, said = configure(tmp_path, gpu, options, **variables)
    assert (found, message in said) == (status, True), said
