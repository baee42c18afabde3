# SPDX-License-Identifier: Apache-2.0
"""Points from C++: the voxels and results of Python, bit by bit."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scn_fx import Engine
from tests.cpp_programs import program
from tests.oracle.point_networks import GRID, network_on
from tests.oracle.points import near_faces
from tests.runtime.point_grids import grid_of
from tests.test_cpp_example import fnv1a


@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.parametrize("float64", [False, True])
def test_points_have_the_bits_of_python(tmp_path: Path, most: int | None, float64: bool) -> None:
    cells = replace(GRID, max_points=most, float64=float64)
    file = tmp_path / "scn.onnx"
    file.write_bytes(network_on(cells, metadata=grid_of(cells).to_text()))
    scans = [near_faces(seed, count, cells, 4, np.float32) for seed, count in ((1, 400), (2, 0), (3, 250))]
    # the program rounds these to float16 as well, which has fewer numbers
    scans = [np.clip(scan, -60000, 60000) for scan in scans]
    np.concatenate(scans).tofile(tmp_path / "points.bin")
    done = subprocess.run(
        [program("points"), file, tmp_path / "points.bin", "4", *(str(len(scan)) for scan in scans)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    engine = Engine(file)
    made = engine.voxelize(scans)
    result = engine.run_points(scans)
    empty = fnv1a(np.zeros(0, np.uint8))
    assert done.stdout.splitlines() == [
        f"{len(made)} voxels, {made.dropped} outside, {made.surplus} surplus",
        f"{fnv1a(made.features)} {fnv1a(made.indices)}",
        f"{int(fnv1a(result), 16) ^ int(empty, 16):016x} after voxels",
    ]
