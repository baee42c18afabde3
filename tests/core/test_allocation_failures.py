# SPDX-License-Identifier: Apache-2.0
"""Every allocation of a load and of frames fails in turn; the engine is right afterwards."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import cpp_programs
from tests.fuzz.seeds import seeds

MIXED = re.compile(r"residual|inverse|strided|transposed|bev|transpose|two-outputs|sorted|long|quant")


@pytest.mark.parametrize("threads", [1, 3])
def test_frames_after_a_failure_have_the_right_bits(tmp_path: Path, threads: int) -> None:
    files = []
    for name, onnx in seeds("onnx").items():
        if MIXED.search(name) and "-frames" not in name:
            files.append(tmp_path / name)
            files[-1].write_bytes(onnx)
    assert len(files) > 12
    program = cpp_programs.program("allocation_failures")
    done = subprocess.run([program, str(threads), *files], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    failed = re.fullmatch(r"(\d+) allocations failed\n", done.stdout)
    assert failed and int(failed[1]) > 200 * len(files) / 2, done.stdout


def test_many_callers_share_engines(tmp_path: Path) -> None:
    wanted = ("residual-int8.onnx", "long-axis.onnx", "bev-fp16.onnx", "sorted-cells.onnx")
    files = [tmp_path / name for name in wanted]
    for file in files:
        file.write_bytes(seeds("onnx")[file.name])
    program = cpp_programs.program("many_threads")
    done = subprocess.run([program, "3", *files], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("72 frames") == len(files)
