# SPDX-License-Identifier: Apache-2.0
"""Every allocation of a load and of frames fails in turn; the engine is right afterwards."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import scn_fx
from tests import cpp_programs
from tests.fuzz.seeds import seeds

NETWORKS = (
    "residual-int8", "inverse-fp16", "strided-int8", "transposed-fp16", "bev-int8", "transpose",
    "two-outputs-fp16", "sorted-cells", "long-axis",
)  # fmt: skip


def _written(folder: Path, *names: str) -> list[Path]:
    """Files of these networks of the fuzz targets' seeds."""
    known = seeds("onnx")
    files = [folder / f"{name}.onnx" for name in names]
    for file in files:
        file.write_bytes(known[file.name])
    return files


@pytest.mark.parametrize("threads", [1, 3])
def test_frames_after_a_failure_have_the_right_bits(tmp_path: Path, threads: int) -> None:
    files = _written(tmp_path, *NETWORKS)
    for file in files[:3]:
        scn_fx.save_plan(file, file.with_suffix(".plan"))
    files += [file.with_suffix(".plan") for file in files[:3]]
    program = cpp_programs.program("allocation_failures")
    done = subprocess.run([program, str(threads), *files], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    failed = re.fullmatch(r"(\d+) allocations failed\n", done.stdout)
    assert failed and int(failed[1]) > 150 * len(files), done.stdout


def test_many_callers_share_engines(tmp_path: Path) -> None:
    files = _written(tmp_path, "residual-int8", "long-axis", "bev-fp16", "sorted-cells")
    program = cpp_programs.program("many_threads")
    done = subprocess.run([program, "3", *files], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("72 frames") == len(files)
