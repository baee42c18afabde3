# SPDX-License-Identifier: Apache-2.0
"""The same voxels as spconv's own generator, one for one: sites, numbers of points, and float32 means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cumm import tensorview as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from spconv.utils import Point2VoxelCPU3d

from scn_fx.lidar import (
    CENTERPOINT_GRID,
    GRIDS,
    KITTI_GRID,
    VoxelGrid,
    read_sweep,
    synthetic_points,
    voxelize,
)
from tests.oracle.frames import data_folder

CORNERS = {
    "kitti": VoxelGrid((0.0, -4.0, -3.0, 7.0, 4.0, 1.0), (0.05, 0.05, 0.1)),
    "nuscenes": VoxelGrid((-5.1, -5.1, -5.0, 5.1, 5.1, 3.0), (0.075, 0.075, 0.2)),
    "waymo": VoxelGrid((-7.5, 0.0, -2.0, 7.5, 7.2, 4.0), (0.1, 0.1, 0.15)),
    "far": VoxelGrid((150.0, 160.0, 1.0, 160.2, 170.0, 2.3), (0.17, 0.4, 0.1)),
}
"""Small cuts of the field's grids: its voxel sizes, whose faces float32 cannot hold."""


def _spconv(
    points: npt.NDArray[Any], point_range: Any, voxel_size: Any, most: int
) -> dict[tuple[int, ...], tuple[int, list[float]]]:
    """Number of points and their mean by site (z, y, x), from the points that spconv's generator keeps."""
    generator = Point2VoxelCPU3d(
        list(voxel_size), list(point_range), points.shape[1], max(len(points), 1), most
    )
    found = generator.point_to_voxel(tv.from_numpy(points))
    voxels, sites, counts = (array.numpy().copy() for array in found)
    means = np.zeros_like(voxels[:, 0])
    for number in range(most):  # one after the other, as spconv's own mean; missing points are zeros
        means += voxels[:, number]
    means /= np.maximum(counts, 1)[:, None].astype(np.float32)
    return {
        tuple(site): (count, mean)
        for site, count, mean in zip(sites.tolist(), counts.tolist(), means.tolist(), strict=True)
    }


def _ours(points: npt.NDArray[Any], grid: VoxelGrid) -> dict[tuple[int, ...], tuple[int, list[float]]]:
    got = voxelize(points, grid, dtype=np.float32)
    assert int(got.counts.sum()) + got.dropped + got.surplus == len(points)
    rows = zip(got.indices[:, 1:].tolist(), got.counts.tolist(), got.features.tolist(), strict=True)
    return {tuple(site): (count, mean) for site, count, mean in rows}


def _near_faces(seed: int, count: int, grid: VoxelGrid, dtype: Any) -> npt.NDArray[Any]:
    """Points on and one step beside the faces of voxels and of the range, and anywhere, some outside."""
    random = np.random.default_rng(seed)
    low, high = np.array(grid.point_range[:3]), np.array(grid.point_range[3:])
    faces = random.integers(-1, np.array(grid.box_shape[::-1]) + 2, (count, 3))
    on = (low + faces * np.array(grid.voxel_size)).astype(np.float32)
    step = random.integers(-1, 2, (count, 3))
    on = np.where(step == 0, on, np.nextafter(on, np.where(step > 0, np.inf, -np.inf).astype(np.float32)))
    anywhere = random.uniform(low - 0.3, high + 0.3, (count, 3)).astype(np.float32)
    position = np.where(random.random((count, 3)) < 0.7, on, anywhere)
    rest = random.uniform(0, 255, (count, 2)).astype(np.float32)
    # Some points share a voxel, so that means have something to add up.
    points = np.hstack([position, rest])[random.integers(0, count, 2 * count)] if count else np.zeros((0, 5))
    points[:, 3:] += random.uniform(0, 1, (len(points), 2))
    return points.astype(dtype)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    count=st.integers(0, 250),
    name=st.sampled_from(sorted(CORNERS)),
    most=st.integers(1, 12),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_random_points_and_faces(seed: int, count: int, name: str, most: int, dtype: Any) -> None:
    grid = replace(CORNERS[name], max_points=most)
    points = _near_faces(seed, count, grid, dtype)
    assert _ours(points, grid) == _spconv(points, grid.point_range, grid.voxel_size, most)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), edge=st.sampled_from([0.3, 0.07, 0.13, 0.23]))
def test_a_range_without_whole_voxels_is_rounded_as_spconv_does(seed: int, edge: float) -> None:
    point_range = (-5.0, -4.0, -1.0, 5.0, 4.0, 1.0)
    grid = VoxelGrid.rounded(point_range, (edge, edge, 0.2), max_points=5)
    points = _near_faces(seed, 200, grid, np.float32)
    assert _ours(points, grid) == _spconv(points, point_range, (edge, edge, 0.2), 5)


def _frames() -> dict[str, tuple[Path | None, str, VoxelGrid]]:
    """Point files that are there, with format and grid; the synthetic sweeps in any case."""
    found: dict[str, tuple[Path | None, str, VoxelGrid]] = {"synthetic": (None, "", CENTERPOINT_GRID)}
    folder = data_folder()
    known = {
        "kitti_000008.bin": ("kitti", KITTI_GRID),
        "nuscenes_single_sweep.bin": ("nuscenes", GRIDS["nuscenes"]),
        "nuscenes_ten_sweeps.bin": ("float16x5", CENTERPOINT_GRID),
        "frames/kitti_000000.bin": ("kitti", KITTI_GRID),
        "frames/semantickitti_00_000000.bin": ("kitti", KITTI_GRID),
        "frames/nuscenes_boston.bin": ("nuscenes", CENTERPOINT_GRID),
        "frames/nuscenes_singapore.bin": ("nuscenes", GRIDS["nuscenes"]),
        "frames/argoverse2.bin": ("argoverse2", GRIDS["once"]),
        "frames/ouster_os1_128.bin": ("nuscenes", GRIDS["waymo"]),
        "frames/rellis_os1_64.bin": ("kitti", GRIDS["waymo"]),
    }
    for name, (layout, grid) in known.items():
        if folder is not None and (Path(folder) / name).is_file():
            found[name] = (Path(folder) / name, layout, grid)
    return found


@pytest.mark.parametrize("name", _frames())
def test_whole_frames(name: str) -> None:
    path, layout, grid = _frames()[name]
    points = synthetic_points() if path is None else read_sweep(path, layout).astype(np.float32)
    grid = replace(grid, max_points=10)
    expected = _spconv(points, grid.point_range, grid.voxel_size, 10)
    assert _ours(points, grid) == expected
    every = voxelize(points, replace(grid, max_points=None))
    assert {tuple(site) for site in every.indices[:, 1:].tolist()} == set(expected), "a limit moves no voxel"
    assert every.surplus == 0 and int(every.counts.sum()) + every.dropped == len(points)


def test_float16_points_are_taken_as_float32() -> None:
    points = synthetic_points(sweeps=1).astype(np.float16)
    a, b = (voxelize(p, CENTERPOINT_GRID) for p in (points, points.astype(np.float32)))
    assert np.array_equal(a.indices, b.indices) and np.array_equal(a.features, b.features)


def test_arithmetic_matters_on_faces() -> None:
    """Multiples of float32(0.1) start their voxel in float32; in float64 some lie in the one below."""
    single = VoxelGrid((0.0, 0.0, 0.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.1))
    exact = replace(single, arithmetic="float64")
    faces = np.repeat(np.arange(10, dtype=np.float32)[:, None] * np.float32(0.1), 3, axis=1)
    a, b = voxelize(faces, single).indices[:, 3], voxelize(faces, exact).indices[:, 3]
    assert a.tolist() == list(range(10)) and b.tolist() != list(range(10))


def test_max_points_of_the_call_and_of_the_grid() -> None:
    points = np.array([[0.5, 0.5, 0.5, value] for value in (1.0, 2.0, 6.0)], np.float32)
    grid = VoxelGrid((0, 0, 0, 4, 4, 4), (1, 1, 1))
    assert voxelize(points, grid).features[0, 3] == 3.0
    two = voxelize(points, grid, max_points=2)
    assert (two.features[0, 3], two.counts.tolist(), two.surplus) == (1.5, [2], 1)
    assert voxelize(points, replace(grid, max_points=1)).features[0, 3] == 1.0
    assert voxelize(points, replace(grid, max_points=1), max_points=2).features[0, 3] == 1.5
