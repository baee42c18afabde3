# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder or a list are frames, and points and voxels in NumPy's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scn_fx.errors import LidarError
from scn_fx.lidar import guess_format, read_points, read_sweep, write_tensor
from scn_fx.lidar.frame_paths import frame_paths, read_voxels

FEATURES = np.arange(10, dtype=np.float16).reshape(2, 5)
INDICES = np.array([[0, 1, 2, 3], [0, 3, 2, 1]], np.int32)


def names(root: Path, found: list[tuple[Path, ...]]) -> list[tuple[str, ...]]:
    return [tuple(file.relative_to(root).as_posix() for file in files) for files in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frames of every kind in a folder and two below, and files that are none."""
    (tmp_path / "night" / "rain").mkdir(parents=True)
    (tmp_path / ".cache").mkdir()
    for name in ("b.bin", "a.pcd", "notes.md", ".cache/old.bin", "night/c.npy", "night/rain/d.tensor"):
        (tmp_path / name).write_bytes(b"?")
    write_tensor(tmp_path / "infer.xyz.voxels", FEATURES)
    write_tensor(tmp_path / "infer.xyz.coors", INDICES)
    np.save(tmp_path / "e.features.npy", FEATURES)
    np.save(tmp_path / "e.indices_zyx.npy", INDICES)
    np.savez(tmp_path / "night" / "f.npz", features=FEATURES, indices=INDICES)
    np.savez(tmp_path / "night" / "g.npz", points=FEATURES)
    return tmp_path


def test_a_folder_gives_its_frames_and_those_below(folder: Path) -> None:
    np.savez(folder / "labels.npz", boxes=FEATURES, classes=INDICES)
    (folder / "night" / "again").symlink_to(folder)  # leads in a circle
    expected = [
        ("a.pcd",),
        ("b.bin",),
        ("e.features.npy", "e.indices_zyx.npy"),
        ("infer.xyz.voxels", "infer.xyz.coors"),
        ("night/c.npy",),
        ("night/f.npz", "night/f.npz"),
        ("night/g.npz",),
        ("night/rain/d.tensor",),
    ]
    assert names(folder, frame_paths(folder)) == expected
    assert names(folder, frame_paths(folder, subfolders=False)) == expected[:4]


def test_voxels_of_every_kind_are_read(folder: Path) -> None:
    for file in ("infer.xyz.voxels", "e.features.npy", "night/f.npz"):
        ((features, indices),) = map(read_voxels, frame_paths(folder / file))
        assert np.array_equal(features, FEATURES) and np.array_equal(indices, INDICES)
        assert features.dtype == np.float16 and indices.dtype == np.int32
    np.save(folder / "features.npy", FEATURES)
    np.save(folder / "indices.npy", INDICES)
    assert ("features.npy", "indices.npy") in names(folder, frame_paths(folder)), "names need no beginning"
    np.savez(folder / "h.npz", voxels=FEATURES, coors=INDICES)
    assert np.array_equal(read_voxels(frame_paths(folder / "h.npz")[0])[1], INDICES)


def test_a_list_gives_frames_in_its_order(folder: Path) -> None:
    (folder / "train.txt").write_text("# key frames\nnight\n\n  b.bin  \ne.features.npy\n", encoding="utf-8")
    found = names(folder, frame_paths(folder / "train.txt"))
    assert found[-2:] == [("b.bin",), ("e.features.npy", "e.indices_zyx.npy")] and len(found) == 6
    for text, match in (
        ("b.bin\ngone.bin\n", r"train.txt, line 2: .*there is no '.*gone.bin'. Paths are relative"),
        ("train.txt\n", "line 1: .*another list"),
        ("# nothing\n", "expected frames as points .*found none"),
    ):
        (folder / "train.txt").write_text(text, encoding="utf-8")
        with pytest.raises(LidarError, match=match):
            frame_paths(folder / "train.txt")
    (folder / "train.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(LidarError, match="not UTF-8"):
        frame_paths(folder / "train.txt")


def test_halves_of_pairs_are_refused(folder: Path) -> None:
    (folder / "infer.xyz.coors").unlink()
    with pytest.raises(LidarError, match=r"infer.xyz.voxels: expected infer.xyz.coors beside it, found none"):
        frame_paths(folder)
    np.save(folder / "e.indices.npy", INDICES)
    with pytest.raises(LidarError, match=r"found e.indices.npy, e.indices_zyx.npy"):
        frame_paths(folder / "e.features.npy")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", ">f4"])
def test_points_in_numpys_files(tmp_path: Path, dtype: str) -> None:
    points = np.array([[1, 2, 3, 40], [5, 6, 7, 80]]).astype(dtype)
    np.save(tmp_path / "a.npy", points)
    np.savez(tmp_path / "b.npz", points=points, boxes=np.zeros(3))
    np.savez(tmp_path / "c.npz", cloud=points)
    for name in ("a.npy", "b.npz", "c.npz"):
        found = read_points(tmp_path / name)
        assert found.dtype == (np.float16 if dtype == "float16" else np.float32) and found.dtype.isnative
        assert np.array_equal(found, points)
    assert guess_format(tmp_path / "a.npy") == "npy" and guess_format(tmp_path / "b.npz") == "npz"


def test_a_format_says_what_the_columns_of_an_array_are(tmp_path: Path) -> None:
    points = np.array([[1, 2, 3, 40, 7], [5, 6, 7, 80, 31]], np.float32)
    path = tmp_path / "a.npy"
    np.save(path, points)
    assert np.array_equal(read_sweep(path), points), "without a format they are taken as they are"
    assert read_sweep(path, "nuscenes")[:, 4].tolist() == [0, 0]
    for format, match in (("kitti", "but it has 5 columns"), ("float32x5", "time lag would span 7 to 31")):
        with pytest.raises(LidarError, match=match):
            read_sweep(path, format)


def test_arrays_that_are_no_points(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(5))
    np.savez(tmp_path / "b.npz", left=np.zeros((2, 4)), right=np.zeros((2, 4)))
    (tmp_path / "c.npy").write_bytes(b"nothing")
    for name, match in (
        ("a.npy", r"expected points as float32 \[N, >= 3\].*got float64 \[5\]"),
        ("b.npz", "expected the points as its array 'points', or as its only one, got left, right"),
        ("c.npy", "magic bytes"),
    ):
        with pytest.raises(LidarError, match=match):
            read_points(tmp_path / name)
