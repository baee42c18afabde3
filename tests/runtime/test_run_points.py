# SPDX-License-Identifier: Apache-2.0
"""Points to results in one call on the CPU: the voxels of an oracle in fractions, and the bits of a call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scn_fx import Engine, _core
from scn_fx.errors import ArgumentError, GridError, LidarError, NonFiniteError, OnnxError, SiteError
from scn_fx.lidar import CENTERPOINT_GRID, GRIDS, VoxelGrid, voxelize
from scn_fx.lidar.voxels import core_grid
from tests.oracle.point_networks import GRID, network_on
from tests.oracle.points import Cells, near_faces, voxels
from tests.runtime.point_grids import grid_of, same

DTYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64}


cells = st.builds(
    lambda float64, most: replace(GRID, float64=float64, max_points=most),
    st.booleans(),
    st.sampled_from([None, 1, 3, 40]),
)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    count=st.integers(0, 300),
    columns=st.integers(3, 9),
    dtype=st.sampled_from(sorted(DTYPES)),
    grid=cells,
    threads=st.integers(1, 3),
)
def test_voxels_are_those_of_the_oracle(
    seed: int, count: int, columns: int, dtype: str, grid: Cells, threads: int
) -> None:
    points = near_faces(seed, count, grid, columns, DTYPES[dtype])
    sites, means, counts, outside = voxels(points, grid)
    got = voxelize(points, grid_of(grid), dtype=np.float32)
    assert got.indices[:, 1:].tolist() == [list(site) for site in sites]
    assert same(got.features, means)
    most = grid.max_points or count
    assert got.counts.tolist() == [min(n, most) for n in counts]
    assert (got.dropped, got.surplus) == (outside, sum(max(n - most, 0) for n in counts))
    if dtype == "float64":
        return
    engine = _core.Engine(
        network_on(grid, columns=columns), threads=threads, grid=core_grid(grid_of(grid), grid.max_points)
    )
    features, indices, dropped, surplus = engine.voxelize(points, [count])
    assert same(features, means.astype(np.float16)) and np.array_equal(indices, got.indices)
    assert (dropped, surplus) == (got.dropped, got.surplus)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), count=st.integers(0, 400), dtype=st.sampled_from(["float16", "float32"]))
def test_the_order_of_points_is_in_no_bit(seed: int, count: int, dtype: str) -> None:
    points = near_faces(seed, count, GRID, 4, DTYPES[dtype])
    shuffled = points[np.random.default_rng(seed).permutation(count)]
    engine = Engine(network_on(GRID), grid=grid_of(GRID), threads=2)
    for a, b in zip(engine.voxelize(points), engine.voxelize(shuffled), strict=True):
        assert same(a, b)
    assert same(engine.run_points(points), engine.run_points(shuffled))
    got = voxelize(shuffled, grid_of(GRID), dtype=np.float32)
    assert same(got.features, voxelize(points, grid_of(GRID), dtype=np.float32).features)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("most", [None, 2])
def test_results_are_those_of_a_call_with_the_voxels(sparse: bool, most: int | None) -> None:
    cells = replace(GRID, max_points=most)
    engine = Engine(network_on(cells, sparse=sparse), grid=grid_of(cells))
    for seed in range(3):
        points = near_faces(seed, 500, cells, 4, np.float32)
        expected = engine(*voxelize(points, engine.grid))
        assert same(engine.run_points(points), expected)
        assert same(engine(*engine.voxelize(points)), expected)


def test_a_batch_is_a_list_of_scans_and_may_have_empty_ones() -> None:
    engine = Engine(network_on(GRID, batch_size=2), grid=grid_of(GRID))
    scans = [near_faces(seed, count, GRID, 4, np.float32) for seed, count in ((0, 200), (1, 0), (2, 150))]
    together = engine.run_points(scans)
    assert together.shape[0] == 3
    for number, scan in enumerate(scans):
        assert same(together[number : number + 1], engine.run_points(scan))
    made = engine.voxelize(scans)
    assert made.dropped == sum(engine.voxelize(scan).dropped for scan in scans)
    assert sorted(set(made.indices[:, 0])) == [0, 2]
    assert same(engine.run_points([torch.from_numpy(scan) for scan in scans]).numpy(), together)


def test_torch_tensors_come_back_as_torch_tensors() -> None:
    engine = Engine(network_on(GRID), grid=grid_of(GRID))
    points = near_faces(3, 200, GRID, 4, np.float32)
    result = engine.run_points(torch.from_numpy(points))
    assert isinstance(result, torch.Tensor) and same(result.numpy(), engine.run_points(points))
    half = torch.from_numpy(points).bfloat16()
    assert same(engine.run_points(half).numpy(), engine.run_points(half.float().numpy()))


@pytest.mark.parametrize(("axes", "ndim"), [("xyz", 3), ("zyx", 2), ("xyz", 2)])
def test_other_axes_and_pillars(axes: str, ndim: int) -> None:
    cells = GRID if ndim == 3 else replace(GRID, edge=(0.25, 0.4, 1.8), size=(32, 15, 1))
    extra = 1 if ndim == 3 else 0
    engine = Engine(network_on(cells, axes=axes, ndim=ndim, extra_z=extra), grid=grid_of(cells, extra))
    points = near_faces(4, 300, cells, 4, np.float32)
    frame = voxelize(points, grid_of(cells, extra))
    indices = engine.network_grid.columns(frame.indices)
    assert same(engine.run_points(points), engine(frame.features, indices))
    made = engine.voxelize(points)
    assert made.indices.shape[1] == ndim + 1
    order = np.lexsort(indices.T[::-1])
    assert np.array_equal(made.indices, indices[order]) and same(made.features, frame.features[order])


@pytest.mark.parametrize("most", [None, 7])
def test_the_file_knows_its_grid(most: int | None) -> None:
    grid = grid_of(replace(GRID, float64=True, max_points=most))
    recording = network_on(GRID, metadata=grid.to_text())
    engine, told = Engine(recording), Engine(network_on(GRID), grid=grid)
    assert engine.grid == grid == told.grid
    points = near_faces(5, 300, GRID, 4, np.float32)
    assert same(engine.run_points(points), told.run_points(points))
    # The same voxels, and other means.
    other = Engine(recording, grid=replace(grid, max_points=1))
    assert same(other.voxelize(points).features, voxelize(points, replace(grid, max_points=1)).features)


def test_engines_without_the_right_grid_say_what_to_do() -> None:
    points = near_faces(0, 10, GRID, 4, np.float32)
    bare = Engine(network_on(GRID))
    with pytest.raises(GridError, match=r"does not record one.*Pass grid="):
        bare.run_points(points)
    with pytest.raises(ArgumentError, match=r"Points need a voxel grid.*Engine\(\.\.\., grid="):
        _core.Engine(network_on(GRID)).run_points(points, [10])
    with pytest.raises(GridError, match=r"grid= is the grid .*takes sites in 7 x 15 x 32"):
        Engine(network_on(GRID), grid=CENTERPOINT_GRID)
    with pytest.raises(ArgumentError, match=r"41 x 1440 x 1440 \(z, y, x\) sites, but the network's lie on"):
        _core.Engine(network_on(GRID), grid=core_grid(CENTERPOINT_GRID, None))
    recording = network_on(GRID, metadata=grid_of(GRID).to_text())
    moved = grid_of(replace(GRID, low=(-4.5, -3.0, -1.0)))
    with pytest.raises(GridError, match=r"grid= is the grid"):
        Engine(recording, grid=moved)
    with pytest.raises(
        ArgumentError, match=r"The grid given is from \(-4.5, .*but the file's is from \(-4, "
    ):
        _core.Engine(recording, grid=core_grid(moved, None))
    with pytest.raises(ArgumentError, match=r"grid must be a scn_fx\.lidar\.VoxelGrid"):
        Engine(network_on(GRID), grid="nuscenes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("point_range", "1,2,3"),
        ("point_range", "1,2,3,4,5,6,7"),
        ("voxel_size", "a,b,c"),
        ("extra_z", "-1"),
        ("max_points", "0"),
        ("arithmetic", "float16"),
        ("colour", "red"),
    ],
)
def test_damaged_metadata_stops_points_but_not_voxels(key: str, text: str) -> None:
    said = {**grid_of(GRID).to_text(), f"scn_fx.grid.{key}": text}
    engine = _core.Engine(network_on(GRID, metadata=said))
    points = near_faces(0, 10, GRID, 4, np.float32)
    with pytest.raises(OnnxError, match=r"damaged metadata about its voxel grid.*Export it again"):
        engine.run_points(points, [10])
    frame = voxelize(points, grid_of(GRID))
    engine.run(frame.features, np.asarray(frame.indices), 1)


def test_wrong_points_say_what_is_wrong() -> None:
    engine = Engine(network_on(GRID), grid=grid_of(GRID))
    points = near_faces(0, 50, GRID, 4, np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        wrong = points.copy()
        wrong[[7, 30], 3] = bad
        with pytest.raises(NonFiniteError, match="2 hold NaN or infinity, the first is point 7"):
            engine.run_points(wrong)
        with pytest.raises(LidarError, match="in 2 of 50 points, first in point 7"):
            voxelize(wrong, grid_of(GRID))
    wrong = np.full((3, 4), 0.1, np.float32)
    wrong[1, 3] = 2.0**31
    with pytest.raises(ArgumentError, match=r"smaller than 2\^31, but 1 points.*the first is point 1"):
        engine.run_points(wrong)
    with pytest.raises(LidarError, match=r"smaller than 2\^31"):
        voxelize(wrong, grid_of(GRID), dtype=np.float32)
    wrong[1, 0] = 1000.0  # outside, where nothing is summed
    assert engine.voxelize(wrong).dropped == 1
    wrong[:, 3] = 70000.0
    with pytest.raises(NonFiniteError, match="beyond float16"):
        engine.run_points(wrong)
    with pytest.raises(SiteError, match="reads 4 features per site, the points have 5 columns"):
        engine.run_points(np.zeros((2, 5), np.float32))
    with pytest.raises(SiteError, match=r"points must be float16, float32 or bfloat16.*astype"):
        engine.run_points(points.astype(np.float64))
    with pytest.raises(SiteError, match=r"points must be .*shape \[P, C\].*got float32 \[4\]"):
        engine.run_points(points[0])
    with pytest.raises(SiteError, match=r"points\[0\] must be an array"):
        engine.run_points([[1.0, 2.0]])
    with pytest.raises(SiteError, match="one type, width and place"):
        engine.run_points([points, points[:, :3]])
    with pytest.raises(ArgumentError, match="empty list"):
        engine.run_points([])
    with pytest.raises(ArgumentError, match="no streams"):
        engine.run_points(points, stream=1)
    assert same(engine.run_points(points), engine(*voxelize(points, grid_of(GRID)))), "still usable"


def test_networks_of_fewer_features_than_coordinates_take_no_points() -> None:
    engine = Engine(network_on(GRID, columns=2), grid=grid_of(GRID))
    with pytest.raises(SiteError, match="reads 2 features per site, so they are not the means of points"):
        engine.run_points(np.zeros((2, 2), np.float32))


def test_grids_beyond_a_bitmap_keep_sorted_cells() -> None:
    cells = Cells((-200.0, -200.0, -20.0), (0.05, 0.05, 0.05), (8000, 8000, 20))
    grid = VoxelGrid((-200.0, -200.0, -20.0, 200.0, 200.0, -19.0), (0.05, 0.05, 0.05))
    points = near_faces(6, 300, cells, 4, np.float32)
    sites, means, _, outside = voxels(points, cells)
    got = voxelize(points, grid, dtype=np.float32)
    assert got.indices[:, 1:].tolist() == [list(site) for site in sites] and got.dropped == outside
    assert same(got.features, means)


def test_a_mean_is_rounded_from_the_exact_sum() -> None:
    """Values that cancel: a sum in float64 loses the small one, whatever the order."""
    points = np.full((3, 4), 0.1, np.float32)
    points[:, 3] = 2.0**30, 2.0**-24, -(2.0**30)
    got = voxelize(points, grid_of(GRID), dtype=np.float32)
    assert got.features[0, 3] == np.float32(2.0**-24 / 3)
    # Half a step of float64 beside a tie of float32, and 2^-63 that decides: rounded up twice.
    ties = np.full((4, 4), 0.1, np.float32)
    ties[:, 3] = 4.0, 2.0**-22, 2.0**-51, 2.0**-63
    assert voxelize(ties, grid_of(GRID), dtype=np.float32).features[0, 3] == np.float32(1.0 + 2.0**-23)
    tiny = np.full((1, 4), 0.1, np.float32)
    tiny[0, 3] = 1.5 * 2.0**-64  # what lies below 2^-64 is cut off
    assert voxelize(tiny, grid_of(GRID), dtype=np.float32).features[0, 3] == np.float32(2.0**-64)


def test_presets_are_what_their_networks_take() -> None:
    """The core reads the same numbers from a file as Python does, for every grid of the field."""
    for name, grid in GRIDS.items():
        size = grid.box_shape[::-1]
        low = grid.point_range[:3]
        cells = Cells(low, grid.voxel_size, size)
        file = network_on(cells, extra_z=grid.extra_z, metadata=grid.to_text())
        if grid.spatial_shape[0] * grid.spatial_shape[1] * grid.spatial_shape[2] > 10**8:
            continue
        points = near_faces(7, 50, cells, 4, np.float32)
        made = Engine(file, threads=1).voxelize(points)
        expected = voxelize(points, grid)
        assert np.array_equal(made.indices, expected.indices), name
        assert same(made.features, expected.features), name
