# SPDX-License-Identifier: Apache-2.0
"""Voxelisation against a slow oracle that shares no code with it, and its properties."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scn_fx.errors import LidarError
from scn_fx.lidar import CENTERPOINT_GRID, GRIDS, KITTI_GRID, VoxelGrid, collate, voxelize

SMALL = VoxelGrid((-2.0, -1.0, -0.5, 2.0, 3.0, 1.0), (0.25, 0.5, 0.3), arithmetic="float64")
"""In exact arithmetic, as the oracle here; test_spconv_voxels.py has the other one."""


Members = dict[tuple[int, int, int], list[list[float]]]


def _oracle(points: npt.NDArray[Any], grid: VoxelGrid) -> tuple[Members, int]:
    """The points of each occupied voxel (z, y, x), and how many points lie outside."""
    low, high, edge = grid.point_range[:3], grid.point_range[3:], grid.voxel_size
    voxels: Members = {}
    outside = 0
    for point in points.tolist():
        cell = [math.floor((point[axis] - low[axis]) / edge[axis]) for axis in range(3)]
        size = [round((high[axis] - low[axis]) / edge[axis]) for axis in range(3)]
        if all(0 <= c < n for c, n in zip(cell, size, strict=True)):
            voxels.setdefault((cell[2], cell[1], cell[0]), []).append(point)
        else:
            outside += 1
    return voxels, outside


def _coarse(seed: int, count: int, columns: int, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
    """Points on multiples of 1/16, some outside: their sums are exact in float64, whatever the order."""
    values = np.random.default_rng(seed).integers(-48, 64, (count, columns)) / 16
    return values.astype(dtype)


frames = st.tuples(
    st.integers(0, 2**20),
    st.integers(0, 300),
    st.integers(3, 6),
    st.sampled_from([np.float16, np.float32, np.float64]),
)


@settings(max_examples=60, deadline=None)
@given(frame=frames, dtype=st.sampled_from([np.float16, np.float32]))
def test_agrees_with_the_oracle(frame: tuple[int, int, int, Any], dtype: Any) -> None:
    points = _coarse(*frame)
    got = voxelize(points, SMALL, dtype=dtype)
    expected, outside = _oracle(points, SMALL)
    assert got.dropped == outside
    assert got.indices.dtype == np.int32 and got.features.dtype == dtype
    assert got.indices.tolist() == [[0, *site] for site in sorted(expected)]
    assert got.counts.tolist() == [len(expected[site]) for site in sorted(expected)]
    for row, site in enumerate(sorted(expected)):
        mean = [math.fsum(column) / len(expected[site]) for column in zip(*expected[site], strict=True)]
        assert np.array_equal(got.features[row], np.array(mean).astype(dtype)), (site, mean)


@settings(max_examples=40, deadline=None)
@given(frame=frames, seed=st.integers(0, 2**20))
def test_the_order_of_points_does_not_matter(frame: tuple[int, int, int, Any], seed: int) -> None:
    points = _coarse(*frame)
    shuffled = points[np.random.default_rng(seed).permutation(len(points))]
    for a, b in zip(voxelize(points, SMALL), voxelize(shuffled, SMALL), strict=True):
        assert np.array_equal(a, b)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), count=st.integers(0, 400))
def test_means_lie_in_their_voxel_and_points_are_conserved(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).uniform(-3, 3, (count, 4)).astype(np.float32)
    got = voxelize(points, SMALL, dtype=np.float32)
    assert int(got.counts.sum()) + got.dropped == count
    assert (got.counts > 0).all()
    assert len(np.unique(got.indices, axis=0)) == len(got)
    low = np.array(SMALL.point_range[:3]) + got.indices[:, :0:-1] * np.array(SMALL.voxel_size)
    assert (got.features[:, :3] >= low - 1e-5).all()
    assert (got.features[:, :3] <= low + np.array(SMALL.voxel_size) + 1e-5).all()
    kept = (got.features.astype(float) * got.counts[:, None]).sum(axis=0)
    inside = (points[:, :3] >= SMALL.point_range[:3]).all(axis=1) & (
        points[:, :3] < SMALL.point_range[3:]
    ).all(axis=1)
    assert np.allclose(kept, points[inside].astype(float).sum(axis=0), atol=1e-3)


def test_means_do_not_drift_in_a_crowded_voxel() -> None:
    """A float16 or float32 running sum would be far off after a hundred thousand points."""
    points = np.tile(np.array([[0.1, 0.1, 0.1, 200.7]], np.float32), (100_000, 1))
    got = voxelize(points, SMALL, dtype=np.float32)
    assert np.array_equal(got.features, points[:1])
    assert got.counts.tolist() == [100_000]


def test_faces_belong_to_the_voxel_above_and_the_upper_faces_are_outside() -> None:
    sites = [[-2, -1, -0.5], [1.75, 2.5, 0.99], [2, 0, 0], [0, 3, 0], [0, 0, 1.0], [-2.001, 0, 0]]
    points = np.array(sites, np.float32)
    got = voxelize(points, SMALL)
    assert got.indices.tolist() == [[0, 0, 0, 0], [0, 4, 7, 15]]
    assert got.dropped == 4


@pytest.mark.filterwarnings("error")
def test_far_points_are_dropped_not_wrapped() -> None:
    points = np.array([[3e38, 0, 0], [0, -3e38, 0], [0, 0, 1e300], [0.1, 0.1, 0.1]])
    got = voxelize(points, CENTERPOINT_GRID)
    assert (len(got), got.dropped) == (1, 3)


def test_no_points_is_a_valid_frame() -> None:
    for points in (np.zeros((0, 5), np.float32), np.full((3, 5), 500, np.float32)):
        got = voxelize(points, CENTERPOINT_GRID)
        assert got.features.shape == (0, 5) and got.indices.shape == (0, 4)
        assert got.dropped == len(points)


def test_presets() -> None:
    assert CENTERPOINT_GRID.spatial_shape == (41, 1440, 1440) and CENTERPOINT_GRID.box_shape == (
        40,
        1440,
        1440,
    )
    assert KITTI_GRID.spatial_shape == (41, 1600, 1408)
    assert GRIDS["kitti"] == KITTI_GRID and CENTERPOINT_GRID == GRIDS["centerpoint"] == GRIDS["bevfusion"]
    shapes = {name: GRIDS[name].spatial_shape for name in ("nuscenes", "waymo", "once", "argoverse2")}
    assert shapes == {
        "nuscenes": (41, 1024, 1024),
        "waymo": (41, 1504, 1504),
        "once": (41, 1504, 1504),
        "argoverse2": (201, 4000, 4000),
    }
    assert all(grid.arithmetic == "float32" and grid.max_points is None for grid in GRIDS.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 0, 0, 1, 1), (1, 1, 1)), "six range values"),
        (((0, 0, 0, 1, 1, 1), (1, 1)), "three voxel edges"),
        (((0, 0, 0, 1, 1, math.nan), (1, 1, 1)), "finite numbers"),
        (((0, 0, 0, 1, 1, 1), (1, 1, 1), -1), "extra_z >= 0"),
        (((0, 0, 0, 1, 0, 1), (1, 1, 1)), "Axis y needs lower < upper"),
        (((0, 0, 0, 1, 1, 1), (1, 1, 0)), "Axis z needs .*edge > 0"),
        (((0, 0, 0, 1, 1, 1), (1, 1, 1), 1.5), "extra_z >= 0"),
        (((0, 0, 0, 1, 1, 1), "one"), "three voxel edges"),
        (((0, 0, 0, 1, 1, 1), (1, 1, 1), 1, "exact"), "arithmetic is one of float32, float64, got 'exact'"),
        (((0, 0, 0, 1, 1, 1), (1, 1, 1), 1, "float32", 0), "max_points is a number of points >= 1"),
        (((0, 0, 0, 1.04, 1, 1), (0.1, 1, 1)), "Axis x needs a whole number of voxels, got 10.4000"),
        (((0, 0, 0, 1.04, 1, 1), (0.1, 1, 1)), "end of 1 or 1.1 m. A network .* has 10 voxels .*: 1 m gives"),
        (((0, 0, 0, 1e-4, 1, 1), (1, 1, 1)), "Axis x needs a whole number of voxels, got 0.0001"),
    ],
)
def test_bad_grids(arguments: Any, message: str) -> None:
    with pytest.raises(LidarError, match=message):
        VoxelGrid(*arguments)


def test_bad_points() -> None:
    with pytest.raises(LidarError, match=r"got float32 \[4\]"):
        voxelize(np.zeros(4, np.float32), SMALL)
    with pytest.raises(LidarError, match=r"got float32 \[4, 2\]"):
        voxelize(np.zeros((4, 2), np.float32), SMALL)
    with pytest.raises(LidarError, match=r"got int64 \[4, 3\]"):
        voxelize(np.zeros((4, 3), np.int64), SMALL)
    points = np.zeros((5, 4), np.float32)
    points[2, 3], points[4, 0] = np.nan, -np.inf
    with pytest.raises(LidarError, match="in 2 of 5 points, first in point 2"):
        voxelize(points, SMALL)
    with pytest.raises(LidarError, match="dtype=float64"):
        voxelize(points[:1], SMALL, dtype=np.float64)


def test_means_beyond_float16_are_reported() -> None:
    points = np.array([[0, 0, 0, 1.0], [0.3, 0, 0, 70000.0]], np.float32)
    with pytest.raises(LidarError, match=r"at most 65504\), got 70000 in column 3.*dtype=np.float32"):
        voxelize(points, SMALL)
    assert voxelize(points, SMALL, dtype=np.float32).features[1, 3] == 70000.0


def test_three_hundred_thousand_points_take_no_python_loop() -> None:
    """About 0.06 s on two cores; a loop over points would take well above the limit."""
    points = np.random.default_rng(0).uniform(-60, 60, (300_000, 5)).astype(np.float32)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        voxelize(points, CENTERPOINT_GRID)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0


def test_collate_joins_frames_in_order() -> None:
    a = voxelize(_coarse(1, 50, 5, np.float32), SMALL)
    empty = voxelize(np.zeros((0, 5), np.float32), SMALL)
    b = voxelize(_coarse(2, 70, 5, np.float32), SMALL)
    features, indices = collate([a, empty, (b.features, b.indices)])
    assert np.array_equal(features, np.concatenate([a.features, b.features]))
    assert np.array_equal(indices[:, 1:], np.concatenate([a.indices, b.indices])[:, 1:])
    assert indices[:, 0].tolist() == [0] * len(a) + [2] * len(b)
    assert indices.dtype == np.int32
    assert (a.indices[:, 0] == 0).all() and (b.indices[:, 0] == 0).all()


def test_collate_refuses_what_does_not_fit() -> None:
    a = voxelize(_coarse(1, 50, 5, np.float32), SMALL)
    narrow = voxelize(_coarse(1, 50, 4, np.float32), SMALL)
    wide = voxelize(_coarse(1, 50, 5, np.float32), SMALL, dtype=np.float32)
    with pytest.raises(LidarError, match="at least one frame"):
        collate([])
    with pytest.raises(LidarError, match="4 x float16, 5 x float16"):
        collate([a, narrow])
    with pytest.raises(LidarError, match="5 x float16, 5 x float32"):
        collate([a, wide])
    with pytest.raises(LidarError, match="Frame 0: expected one batch index, got 2"):
        collate([collate([a, a])])
    with pytest.raises(LidarError, match="Frame 1: expected features"):
        collate([a, (a.features[1:], a.indices)])
