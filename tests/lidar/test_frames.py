# SPDX-License-Identifier: Apache-2.0
"""Frames: the embedded one is what it promises, a folder of real ones is listed or refused with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from scn_fx.errors import LidarError
from scn_fx.lidar import (
    CENTERPOINT_GRID,
    DATA_VARIABLE,
    KITTI_GRID,
    Frame,
    collate,
    demo_frames,
    embedded_frame,
    real_frames,
    synthetic_points,
    voxelize,
    write_tensor,
)

FRAMES = demo_frames()
if len(FRAMES) == 1:
    print(f"{DATA_VARIABLE} is not set: these tests run on the synthetic frame only.")


def _neighbours(indices: npt.NDArray[np.int32], shape: tuple[int, int, int]) -> float:
    """Mean number of occupied sites in the 3 x 3 x 3 surroundings of a site, itself included."""
    padded = np.array(shape) + 2
    z, y, x = indices[:, 1:].astype(np.int64).T + 1
    sites = np.sort((z * padded[1] + y) * padded[2] + x)
    total = 0
    for dz in (-1, 0, 1):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                total += int(np.isin(sites + (dz * padded[1] + dy) * padded[2] + dx, sites).sum())
    return total / len(sites)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.name)
def test_every_frame_is_a_set_of_sites_in_its_grid(frame: Frame) -> None:
    features, indices = frame
    assert len(frame) == len(features) == len(indices) > 1000
    assert features.dtype == np.float16 and indices.dtype == np.int32
    assert np.isfinite(features.astype(np.float32)).all()
    assert (
        (indices >= 0).all()
        and (indices[:, 1:] < frame.grid.spatial_shape).all()
        and (indices[:, 0] == 0).all()
    )
    assert len(np.unique(indices, axis=0)) == len(indices)
    assert features.shape[1] == (4 if frame.grid is KITTI_GRID else 5)
    # The mean position of a voxel's points lies in the voxel, up to float16 (0.03 m at 54 m).
    low = np.array(frame.grid.point_range[:3]) + indices[:, :0:-1] * np.array(frame.grid.voxel_size)
    position = features[:, :3].astype(np.float64)
    assert (position > low - 0.05).all() and (position < low + np.array(frame.grid.voxel_size) + 0.05).all()
    assert features[:, 3].min() >= 0 and features[:, 3].max() <= 255


def test_the_embedded_frame_resembles_a_real_one() -> None:
    """A real ten-sweep frame has 79,745 voxels with 7.4 neighbours each."""
    frame = embedded_frame()
    assert frame.grid == CENTERPOINT_GRID and frame.features.shape[1] == 5
    assert 75_000 <= len(frame) <= 85_000
    assert 6.9 <= _neighbours(frame.indices, frame.grid.spatial_shape) <= 7.9
    keys = np.ravel_multi_index(tuple(frame.indices[:, 1:].T), frame.grid.spatial_shape)
    assert (np.diff(keys) > 0).all(), "ascending (z, y, x)"


def test_the_embedded_frame_repeats_and_belongs_to_the_caller() -> None:
    first = embedded_frame()
    first.features[:] = 0
    first.indices[:] = 0
    again = embedded_frame()
    expected = voxelize(synthetic_points(0), CENTERPOINT_GRID)
    assert np.array_equal(again.features, expected.features) and np.array_equal(
        again.indices, expected.indices
    )


def test_other_seeds_are_other_frames_of_like_size() -> None:
    first, other = embedded_frame(), embedded_frame(1)
    assert first.name == "synthetic" and other.name == "synthetic-1"
    assert 70_000 <= len(other) <= 90_000 and len(other) != len(first)
    features, indices = collate([first, other])
    assert len(features) == len(first) + len(other) and indices[-1, 0] == 1


def _write_folder(folder: Path) -> npt.NDArray[np.float32]:
    """Files of the known names, filled from the synthetic sensor."""
    points = synthetic_points(2, sweeps=2)[::7]
    features, indices = voxelize(points, CENTERPOINT_GRID)
    write_tensor(folder / "nuscenes_voxels.features.tensor", features[::-1])
    write_tensor(folder / "nuscenes_voxels.indices_zyx.tensor", indices[::-1])
    points.astype(np.float16).tofile(folder / "nuscenes_ten_sweeps.bin")
    ring = np.arange(len(points), dtype=np.float32)[:, None] % 32
    np.hstack([points[:, :4], ring]).tofile(folder / "nuscenes_single_sweep.bin")
    (points[:, :4] / np.array([1, 1, 1, 255], np.float32)).tofile(folder / "kitti_000008.bin")
    return points


def test_a_folder_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = _write_folder(tmp_path)
    frames = {frame.name: frame for frame in real_frames(tmp_path)}
    assert list(frames) == ["nuscenes_voxels", "nuscenes_ten_sweeps", "nuscenes_single_sweep", "kitti_000008"]
    expected = voxelize(points, CENTERPOINT_GRID)
    assert np.array_equal(frames["nuscenes_voxels"].features, expected.features[::-1]), (
        "kept in the file's order"
    )
    single = frames["nuscenes_single_sweep"]
    assert np.array_equal(single.indices, expected.indices)
    assert np.array_equal(single.features[:, :4], expected.features[:, :4])
    assert (single.features[:, 4] == 0).all() and "ring" in single.source
    assert frames["kitti_000008"].features.shape[1] == 4 and frames["kitti_000008"].grid == KITTI_GRID
    halves = voxelize(points.astype(np.float16), CENTERPOINT_GRID)
    assert np.array_equal(frames["nuscenes_ten_sweeps"].features, halves.features)

    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert [frame.name for frame in demo_frames()] == ["synthetic", *frames]
    (tmp_path / "nuscenes_ten_sweeps.bin").unlink()
    assert [frame.name for frame in real_frames()] == [
        "nuscenes_voxels",
        "nuscenes_single_sweep",
        "kitti_000008",
    ]


def test_unusable_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    assert [frame.name for frame in demo_frames()] == ["synthetic"]
    with pytest.raises(LidarError, match=f"Pass one, or set the environment variable {DATA_VARIABLE}"):
        real_frames()
    with pytest.raises(LidarError, match="is no folder"):
        real_frames(tmp_path / "none")
    with pytest.raises(LidarError, match=r"at least one of nuscenes_voxels.*got none of them"):
        real_frames(tmp_path)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(LidarError, match=rf"is no folder\. Check the path in {DATA_VARIABLE}"):
        demo_frames()
    write_tensor(tmp_path / "nuscenes_voxels.features.tensor", np.zeros((2, 5), np.float16))
    with pytest.raises(LidarError, match=r"got no nuscenes_voxels.indices_zyx.tensor. Put both"):
        real_frames(tmp_path)
    write_tensor(tmp_path / "nuscenes_voxels.indices_zyx.tensor", np.zeros((3, 4), np.int32))
    with pytest.raises(LidarError, match=r"nuscenes_voxels: expected indices as int32 \[2, 4\]"):
        real_frames(tmp_path)


@pytest.mark.parametrize(
    ("features", "indices", "message"),
    [
        (np.zeros((2, 5)), np.zeros((2, 4), np.int32), "got float64"),
        (np.zeros(2, np.float16), np.zeros((2, 4), np.int32), r"got float16 \[2\]"),
        (np.zeros((2, 5), np.float16), np.zeros((2, 4), np.int64), "got int64"),
        (np.zeros((2, 5), np.float16), np.zeros((2, 3), np.int32), r"got int32 \[2, 3\]"),
        (
            np.zeros((1, 5), np.float16),
            np.array([[0, 41, 0, 0]], np.int32),
            r"1 outside, first row 0: \[0, 41, 0, 0\]",
        ),
        (np.zeros((1, 5), np.float16), np.array([[-1, 0, 0, 0]], np.int32), "1 outside"),
        (np.zeros((1, 5), np.float16), np.array([[0, 0, 0, 1440]], np.int32), "1 outside"),
    ],
)
def test_bad_frames(features: npt.NDArray[Any], indices: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(LidarError, match=message):
        Frame("bad", features, indices, CENTERPOINT_GRID, "test")


def test_the_package_needs_numpy_only() -> None:
    code = (
        "import sys, scn_fx.lidar; "
        "print([m for m in ('torch', 'spconv', 'modelopt', 'matplotlib', 'onnx') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={**os.environ}, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
