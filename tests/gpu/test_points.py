# SPDX-License-Identifier: Apache-2.0
"""Points on a GPU: the voxels, means and results of the CPU, bit by bit, in one graph and on any stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scn_fx import Engine
from scn_fx.errors import ArgumentError, BoundError, NonFiniteError, SiteError
from scn_fx.lidar import CENTERPOINT_GRID, synthetic_points, voxelize
from tests.oracle.point_networks import GRID, network_on
from tests.oracle.points import Cells, near_faces, voxels
from tests.runtime.point_grids import grid_of, same

pytestmark = pytest.mark.gpu


def pair(cells: Cells, extra_z: int = 1, **options: Any) -> tuple[Engine, Engine]:
    """Engines of one network on both devices."""
    limits = {name: options.pop(name) for name in ("max_points", "max_voxels") if name in options}
    data = network_on(cells, extra_z=extra_z, **options)
    grid = grid_of(cells, extra_z)
    gpu = Engine(data, "cuda", grid=grid, max_batch_size=3, **limits)
    return Engine(data, grid=grid), gpu


def assert_like_the_cpu(cpu: Engine, gpu: Engine, points: Any) -> None:
    a, b = cpu.voxelize(points), gpu.voxelize(points)
    assert same(a.features, b.features) and same(a.indices, b.indices)
    assert (a.dropped, a.surplus) == (b.dropped, b.surplus)
    assert same(cpu.run_points(points), gpu.run_points(points))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    count=st.integers(0, 3000),
    columns=st.integers(3, 9),
    half=st.booleans(),
    float64=st.booleans(),
    most=st.sampled_from([None, 1, 3, 40, 4096]),
)
def test_voxels_have_the_bits_of_the_cpu(
    seed: int, count: int, columns: int, half: bool, float64: bool, most: int | None
) -> None:
    cells = replace(GRID, float64=float64, max_points=most)
    points = near_faces(seed, count, cells, columns, np.float16 if half else np.float32)
    assert_like_the_cpu(*pair(cells, columns=columns), points)


def test_voxels_are_those_of_the_oracle() -> None:
    points = near_faces(11, 2000, GRID, 5, np.float32)
    sites, means, _, outside = voxels(points, GRID)
    made = pair(GRID, columns=5)[1].voxelize(points)
    assert made.indices[:, 1:].tolist() == [list(site) for site in sites] and made.dropped == outside
    assert same(made.features, means.astype(np.float16))


def test_the_order_of_points_is_in_no_bit() -> None:
    gpu = pair(GRID)[1]
    points = near_faces(1, 5000, GRID, 4, np.float32)
    first = gpu.voxelize(points)
    for seed in range(5):
        other = gpu.voxelize(points[np.random.default_rng(seed).permutation(len(points))])
        assert same(first.features, other.features) and same(first.indices, other.indices)


@pytest.mark.parametrize("options", [{"axes": "xyz"}, {"sparse": True}, {"extra_z": 0}])
def test_other_networks(options: dict[str, Any]) -> None:
    for seed in range(3):
        assert_like_the_cpu(*pair(GRID, **options), near_faces(seed, 800, GRID, 4, np.float32))


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
def test_pillars(axes: str) -> None:
    cells = replace(GRID, edge=(0.25, 0.4, 1.8), size=(32, 15, 1))
    engines = pair(cells, 0, axes=axes, ndim=2)
    assert_like_the_cpu(*engines, near_faces(2, 800, cells, 4, np.float32))


def test_crowded_voxels_and_many_columns() -> None:
    """A voxel of so many points that a warp sums it, beside others; more columns than a warp has lanes."""
    crowd = np.tile(near_faces(3, 1, GRID, 40, np.float32), (20_000, 1))
    crowd[:, :3] = GRID.low
    crowd[:, 3:] += np.random.default_rng(0).standard_normal((20_000, 37)).astype(np.float32)
    points = np.concatenate([crowd, near_faces(4, 500, GRID, 40, np.float32)])
    for most in (None, 33):
        assert_like_the_cpu(*pair(replace(GRID, max_points=most), columns=40), points)


def test_batches_and_frames_of_any_size_in_turn() -> None:
    cpu, gpu = pair(GRID)
    for number, counts in enumerate([(300, 0, 200), (0,), (1, 1), (2500,), (0, 0, 5)]):
        scans = [near_faces(number * 5 + i, n, GRID, 4, np.float32) for i, n in enumerate(counts)]
        assert_like_the_cpu(cpu, gpu, scans)
        on_gpu = gpu.run_points([torch.from_numpy(scan).cuda() for scan in scans])
        assert on_gpu.is_cuda and same(on_gpu.cpu().numpy(), cpu.run_points(scans))


def test_points_and_voxels_take_turns_on_one_engine() -> None:
    cpu, gpu = pair(GRID)
    for seed in range(4):
        points = near_faces(seed, 700, GRID, 4, np.float32)
        frame = voxelize(points, grid_of(GRID))
        expected = cpu.run_points(points)
        assert same(gpu.run_points(points), expected)
        assert same(gpu(frame.features, np.asarray(frame.indices)), expected)


def test_tensors_on_other_streams_and_captured_graphs() -> None:
    cpu, gpu = pair(GRID)
    frames = [near_faces(seed, 600, GRID, 4, np.float32) for seed in range(3)]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for points in frames:
            got = gpu.run_points(torch.from_numpy(points).cuda())
            assert same(got.cpu().numpy(), cpu.run_points(points))
    held = torch.from_numpy(frames[0]).cuda()
    side = torch.cuda.Stream()
    got = gpu.run_points(held, stream=side)
    side.synchronize()
    assert same(got.cpu().numpy(), cpu.run_points(frames[0]))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        view = gpu.run_points(held, copy=False)
    for points in frames:
        held.copy_(torch.from_numpy(points))
        graph.replay()
        assert same(view.cpu().numpy(), cpu.run_points(points))
    gpu.synchronize()


def test_the_first_frame_of_points_cannot_be_captured() -> None:
    gpu = pair(GRID)[1]
    held = torch.zeros((10, 4), device="cuda")
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(ArgumentError, match="Run one before the capture"), torch.cuda.graph(graph):
        gpu.run_points(held)
    gpu.run_points(held)


def test_what_is_wrong_is_said_and_the_engine_goes_on() -> None:
    cpu, gpu = pair(GRID, max_points=4000, max_voxels=600)
    points = near_faces(9, 500, GRID, 4, np.float32)
    wrong = points.copy()
    wrong[[70, 300], 3] = np.nan
    with pytest.raises(NonFiniteError, match="2 hold NaN or infinity, the first is point 70"):
        gpu.run_points(wrong)
    with pytest.raises(NonFiniteError, match="2 hold NaN"):
        gpu.voxelize(wrong)
    gpu.run_points(torch.from_numpy(wrong).cuda())
    with pytest.raises(NonFiniteError, match="the first is point 70"):
        gpu.synchronize()
    wrong = np.full((3, 4), 0.1, np.float32)
    wrong[1, 3] = 2.0**31
    with pytest.raises(ArgumentError, match=r"smaller than 2\^31, but 1 points.*the first is point 1"):
        gpu.run_points(wrong)
    wrong[:, 3] = 70000.0
    with pytest.raises(NonFiniteError, match="beyond float16"):
        gpu.run_points(wrong)
    with pytest.raises(
        BoundError, match=r"4001 points, but this engine was made for 4000\. Pass max_points="
    ):
        gpu.run_points(np.zeros((4001, 4), np.float32))
    crowd = near_faces(1, 4000, GRID, 4, np.float32)
    with pytest.raises(BoundError, match=r"voxels, but this engine was made for 600. Pass max_voxels="):
        gpu.run_points(crowd)
    with pytest.raises(ArgumentError, match="max_batch_size=4"):
        gpu.run_points([points[:10]] * 4)
    with pytest.raises(SiteError, match="have 5 columns"):
        gpu.run_points(np.zeros((2, 5), np.float32))
    with pytest.raises(ArgumentError, match="max_points 5000"):
        pair(replace(GRID, max_points=5000))[1].run_points(points)
    few = points[:400]
    assert_like_the_cpu(cpu, gpu, few)


def test_launches_without_a_graph_and_profiles_agree() -> None:
    data, grid = network_on(GRID), grid_of(GRID)
    points = near_faces(2, 700, GRID, 4, np.float32)
    assert same(
        Engine(data, "cuda", grid=grid, graph=False).run_points(points),
        Engine(data, grid=grid).run_points(points),
    )


def test_a_whole_frame_on_a_whole_grid() -> None:
    points = synthetic_points()
    cells = Cells(CENTERPOINT_GRID.point_range[:3], CENTERPOINT_GRID.voxel_size, (1440, 1440, 40))
    data = network_on(cells, columns=points.shape[1], input_range=100.0, bound=200_000)
    cpu, gpu = (Engine(data, device, grid=CENTERPOINT_GRID) for device in ("cpu", "cuda"))
    assert_like_the_cpu(cpu, gpu, points)
