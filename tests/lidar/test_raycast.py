# SPDX-License-Identifier: Apache-2.0
"""Rays on a torch device meet what NumPy's sensor meets; labels count their returns; voxels are the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scn_fx.errors import LidarError
from scn_fx.lidar import (
    CENTERPOINT_GRID,
    EgoMotion,
    SpinningLidar,
    VoxelGrid,
    simulate,
    street_scene,
    voxelize,
)
from scn_fx.lidar.raycast import SceneArrays, measure
from scn_fx.lidar.scene import Prism, Scene
from scn_fx.lidar.torch_voxels import voxelize_batch
from scn_fx.lidar.traffic import traffic_scene

EXACT = SpinningLidar(columns=360, range_noise=0.0, dropout=0.0, fading=0.0)


def solid(scene: Scene) -> Scene:
    """Without foliage, which chance thins."""
    return Scene(scene.ground, tuple(replace(prism, porosity=0.0) for prism in scene.prisms))


def phases(sweeps: int, seed: int) -> list[float]:
    """Where `simulate` begins each turn: it draws nine numbers for each ray between them."""
    random, found = np.random.Generator(np.random.PCG64(seed)), []
    for _ in range(sweeps):
        found.append(float(random.random()))
        random.random((8 - 1, EXACT.columns, EXACT.beams))
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_rays_meet_what_the_numpy_sensor_meets(seed: int) -> None:
    scene = solid(street_scene(seed) if seed else traffic_scene(11).scene)
    ego = EgoMotion(8.0, 0.1)
    expected = simulate(scene, EXACT, ego, sweeps=3, seed=seed)
    arrays = SceneArrays.of(scene, EXACT, ego, sweeps=3, seed=5, phases=phases(3, seed))
    got = measure(arrays).points.numpy()
    # A ray along an edge may meet either side of it in float32: a few points differ.
    assert abs(len(got) - len(expected)) <= 5 and len(got) > 20_000
    for a, b in ((got, expected), (expected, got)):
        near = voxel_neighbours(a[:, [0, 1, 2, 4]], b[:, [0, 1, 2, 4]])
        assert near.mean() > 0.9995


def voxel_neighbours(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """For each row of `a` whether `b` has one within 3 mm."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(b).query(a)[0] < 3e-3)


def test_labels_count_their_returns() -> None:
    labelled = traffic_scene(11)
    still = replace(labelled, sensor=replace(labelled.sensor, range_noise=0.0, columns=600), sweeps=1)
    made = measure(SceneArrays.labelled(still))
    boxes, points = made.boxes(), made.points.numpy()
    inside = []
    for i in range(len(boxes)):
        x, y, z = (points[:, :3] - boxes.centre[i]).T
        cos, sin = np.cos(boxes.yaw[i]), np.sin(boxes.yaw[i])
        along, across = cos * x + sin * y, cos * y - sin * x
        half = boxes.size[i] / 2 + 1e-3
        inside.append(
            int(((np.abs(along) < half[0]) & (np.abs(across) < half[1]) & (np.abs(z) < half[2])).sum())
        )
    # Kerb and ground may reach into a box; nothing of an object is outside of it.
    assert (boxes.points <= inside).all() and boxes.points.sum() > 0.9 * np.sum(inside) > 500


def test_seed_and_device_decide() -> None:
    arrays = SceneArrays.traffic(3).thinned(8)
    first, again = measure(arrays).points, measure(arrays).points
    assert torch.equal(first, again)
    other = measure(replace(arrays, seed=4)).points
    assert first.shape != other.shape or not torch.equal(first, other)
    assert first.dtype == torch.float32 and first.shape[1] == 5
    assert (
        bool(torch.isfinite(first).all()) and 0 <= float(first[:, 3].min()) <= float(first[:, 3].max()) <= 255
    )
    assert torch.equal(first[:, 3], first[:, 3].round())


def test_noise_and_losses_do_what_they_say() -> None:
    wall = Prism(street_scene(0).prisms[0].plan, 0.0, 15.0, 200.0)
    scene = Scene(street_scene(0).ground, (wall,))
    still = EgoMotion(0.0, 0.0)

    def points(sensor: SpinningLidar) -> np.ndarray:
        return measure(SceneArrays.of(scene, sensor, still, sweeps=1, seed=2, phases=[0.0])).points.numpy()

    clean, noisy = points(EXACT), points(replace(EXACT, range_noise=0.05))
    # Kept and sorted alike but for points at the ends of the range.
    gap = np.linalg.norm(noisy[:, :3], axis=1) - np.linalg.norm(clean[:, :3], axis=1)
    assert gap.std() == pytest.approx(0.05, rel=0.05) and abs(gap.mean()) < 0.003
    assert len(points(replace(EXACT, dropout=0.5))) == pytest.approx(0.5 * len(clean), rel=0.05)
    assert len(points(replace(EXACT, dropout=1.0))) == 0


def test_an_empty_scene_is_ground() -> None:
    ground = Scene(street_scene(0).ground, ())
    arrays = SceneArrays.of(ground, EXACT, EgoMotion(0.0, 0.0), sweeps=1, seed=0)
    points = measure(arrays).points
    assert len(points) > 5000 and float(points[:, 2].max()) < -1.0


def test_points_and_boxes_turn_together() -> None:
    arrays = SceneArrays.traffic(3).thinned(8)
    straight, turned = measure(replace(arrays, mount_yaw=0.0)), measure(replace(arrays, mount_yaw=0.5))
    turn = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]], np.float32)
    assert np.allclose(straight.points[:, :2].numpy() @ turn, turned.points[:, :2], atol=1e-4)
    a, b = straight.boxes(), turned.boxes()
    assert np.allclose(a.centre[:, :2] @ turn, b.centre[:, :2], atol=1e-4)
    assert np.allclose(a.velocity @ turn, b.velocity, atol=1e-5)
    assert np.allclose(np.exp(1j * (b.yaw - a.yaw)), np.exp(0.5j), atol=1e-5)


GRID = VoxelGrid((-3.0, -3.0, -1.0, 3.0, 3.0, 1.0), (0.3, 0.3, 0.5))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=3), st.integers(0, 2**31))
def test_voxels_are_those_of_numpy(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    frames = [(random.uniform(-4, 4, (n, 5)) * [1, 1, 0.4, 60, 0.1]).astype(np.float32) for n in sizes]
    for frame in frames:
        frame[: len(frame) // 2] = np.round(frame[: len(frame) // 2] / 0.3) * np.float32(0.3)  # on faces
    features, indices = voxelize_batch([torch.from_numpy(f) for f in frames], GRID)
    assert indices.dtype == torch.int32 and features.dtype == torch.float32
    for i, frame in enumerate(frames):
        expected = voxelize(frame, GRID, dtype=np.float32)
        mine = indices[:, 0] == i
        assert np.array_equal(indices[mine][:, 1:].numpy(), expected.indices[:, 1:])
        assert np.allclose(features[mine].numpy(), expected.features, rtol=1e-6, atol=1e-7)


def test_voxels_of_a_whole_frame() -> None:
    points = measure(SceneArrays.traffic(5).thinned(4)).points
    features, indices = voxelize_batch([points, points.flip(0)], CENTERPOINT_GRID, dtype=torch.float16)
    half = len(features) // 2
    assert torch.equal(features[:half], features[half:]), "the order of points does not matter"
    expected = voxelize(points.numpy(), CENTERPOINT_GRID)
    assert np.array_equal(indices[:half].numpy(), expected.indices)
    assert (features[:half].numpy() == expected.features).mean() > 0.9999


def test_what_cannot_be_voxelised() -> None:
    points = torch.zeros(4, 5)
    for frames, match in (
        ([], "at least one frame"),
        ([points.double()], r"got float64 \[4, 5\]"),
        ([points[:, :2]], r"got float32 \[4, 2\]"),
        ([points, points[:, :4]], "one width on one device"),
        ([points + torch.nan], "finite values of at most"),
        ([points + 1e9], "finite values of at most"),
    ):
        with pytest.raises(LidarError, match=match):
            voxelize_batch(frames, CENTERPOINT_GRID)
    with pytest.raises(LidarError, match="without max_points"):
        voxelize_batch([points], replace(CENTERPOINT_GRID, max_points=5))
