# SPDX-License-Identifier: Apache-2.0
"""Tests marked `gpu` are deselected where there is no usable GPU, unless they are asked for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("options", "selected"), [([], False), (["-m", "gpu"], True)])
def test_without_a_gpu(options: list[str], selected: bool) -> None:
    files = [ROOT / "tests" / "gpu" / "test_cuda_memory.py", ROOT / "tests" / "gpu" / "test_cuda_errors.py"]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *files, *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert bool(re.search(r"::test_", done.stdout)) == selected, done.stdout
    assert ("deselected" in done.stdout) == (not selected), done.stdout
