# SPDX-License-Identifier: Apache-2.0
"""Point files: every format is read as written, guesses are right or refused, errors say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scn_fx.errors import LidarError
from scn_fx.lidar import (
    POINT_FORMATS,
    guess_format,
    read_points,
    synthetic_points,
    with_time_lag,
    write_tensor,
)


def _points(name: str, count: int, seed: int = 0) -> npt.NDArray[Any]:
    """Points as a writer of the format `name` would store them."""
    random = np.random.default_rng(seed)
    position = random.uniform((-80, -80, -4), (80, 80, 12), (count, 3))
    intensity = random.integers(0, 256, (count, 1)).astype(float)
    reflectance, lag = np.round(intensity / 255, 2), random.integers(0, 10, (count, 1)) * 0.05
    ring = random.integers(0, 32, (count, 1))
    further: dict[str, list[npt.NDArray[Any]]] = {
        "kitti": [reflectance],
        "float32x4": [intensity],
        "nuscenes": [intensity, ring],
        "float32x5": [intensity, lag],
        "float16x5": [intensity, lag],
        "waymo": [reflectance, random.uniform(0, 1.4, (count, 1))],
        "argoverse2": [intensity, ring, random.uniform(0, 0.11, (count, 1))],
    }
    return np.hstack([position, *further[name]]).astype(np.float16 if name == "float16x5" else np.float32)


@pytest.mark.parametrize("name", POINT_FORMATS)
@pytest.mark.parametrize("named", [True, False])
def test_round_trip_named_and_guessed(tmp_path: Path, name: str, named: bool) -> None:
    # A multiple of 60 points: the size then fits every record, so the guess rests on the values alone.
    points = _points(name, 480)
    path = tmp_path / "points.bin"
    points.tofile(path)
    if name == "waymo" and not named:  # nothing in it rules out an intensity and a time lag
        with pytest.raises(LidarError, match=r"fit 2: float32x5 .*; waymo .*Pass format="):
            read_points(path)
        return
    back = read_points(path, name if named else None)
    assert back.dtype == points.dtype
    assert np.array_equal(back, points)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(POINT_FORMATS)), count=st.integers(1, 60), seed=st.integers(0, 2**20))
def test_a_guess_is_never_wrong(
    tmp_path_factory: pytest.TempPathFactory, name: str, count: int, seed: int
) -> None:
    """Few points may fit several formats: then the reader asks, it does not choose."""
    path = tmp_path_factory.mktemp("guess") / "points.bin"
    points = _points(name, count, seed)
    points.tofile(path)
    if name == "float32x4" and points[:, 3].max() <= 1:
        name = "kitti"  # the same four columns, by another name
    try:
        assert guess_format(path) == name
    except LidarError as error:
        assert "Pass format=" in str(error)
        assert name in str(error)


def test_the_synthetic_sensor_in_every_format_is_guessed(tmp_path: Path) -> None:
    points = synthetic_points(sweeps=2)
    points = points[: len(points) // 60 * 60]
    ring = np.arange(len(points), dtype=np.float32)[:, None] % 32
    stored = {
        "nuscenes": np.hstack([points[:, :4], ring]),
        "float32x5": points,
        "float32x4": points[:, :4],
        "kitti": points[:, :4] / np.array([1, 1, 1, 255], np.float32),
        "float16x5": points.astype(np.float16),
    }
    for name, values in stored.items():
        values.tofile(tmp_path / "points.bin")
        assert guess_format(tmp_path / "points.bin") == name


def test_tensor_files_are_found_by_suffix_and_by_magic(tmp_path: Path) -> None:
    points = _points("float16x5", 40)
    for name in ("points.tensor", "points.bin"):
        write_tensor(tmp_path / name, points)
        assert guess_format(tmp_path / name) == "tensor"
        assert np.array_equal(read_points(tmp_path / name), points)
        assert np.array_equal(read_points(tmp_path / name, "tensor"), points)


def test_a_tensor_suffix_is_not_guessed_away(tmp_path: Path) -> None:
    _points("nuscenes", 41).tofile(tmp_path / "points.tensor")
    with pytest.raises(LidarError, match="magic 0x33ff1101"):
        read_points(tmp_path / "points.tensor")


def test_ambiguous_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "zeros.bin"
    np.zeros((20, 4), np.float32).tofile(path)
    found = r"fit 5: nuscenes .*; float32x5 .*; float16x5 .*; kitti .*; waymo .*Pass format="
    with pytest.raises(LidarError, match=found):
        read_points(path)
    assert read_points(path, "kitti").shape == (20, 4)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (0, 301.0, r"x would span .* to 301 m, not -300 to 300 m"),
        (1, -301.0, r"y would span -301 to .* m, not -300 to 300 m"),
        (2, -101.0, "z would span -101"),
        (2, 101.0, "z would span .* to 101 m"),
        (3, -1.0, "intensity would span -1"),
        (3, 256.0, "intensity would span .* to 256, not 0 to 255"),
        (4, 0.5, "ring would have fractions"),
        (4, -1.0, "ring would span -1 to .*, not 0 to 255"),
        (4, 300.0, "ring would span .* to 300, not 0 to 255"),
        (0, np.nan, "nuscenes[^:]*: it would hold NaN"),
        (4, np.inf, "nuscenes[^:]*: it would hold NaN"),
    ],
)
def test_implausible_values_are_not_guessed(tmp_path: Path, column: int, value: float, reason: str) -> None:
    points = _points("nuscenes", 20)
    points[:, 3] = np.minimum(points[:, 3], 200)
    points[7, column] = value
    points.tofile(tmp_path / "points.bin")
    with pytest.raises(LidarError, match="look like none of them") as error:
        guess_format(tmp_path / "points.bin")
    assert error.match(reason)


def test_time_lag_beyond_the_rule_is_not_guessed(tmp_path: Path) -> None:
    points = _points("float16x5", 20)
    for value in (-0.5, 11.0):
        points[3, 4] = value
        points.tofile(tmp_path / "points.bin")
        with pytest.raises(LidarError, match="float16x5: time lag would span"):
            guess_format(tmp_path / "points.bin")


@pytest.mark.parametrize("name", POINT_FORMATS)
def test_truncated_and_empty_files(tmp_path: Path, name: str) -> None:
    points = _points(name, 40)
    path = tmp_path / "cut.bin"
    path.write_bytes(points.tobytes()[:-3])
    record = points.itemsize * points.shape[1]
    size = 40 * record - 3
    expected = (
        rf"multiple of {record} bytes for {name} .*got {size} bytes \(39 points and {record - 3} bytes over"
    )
    with pytest.raises(LidarError, match=expected):
        read_points(path, name)
    with pytest.raises(LidarError, match=f"{name}[^:]*: {40 * record - 3} bytes are no multiple of {record}"):
        read_points(path)
    path.write_bytes(b"")
    for named in (name, None):
        with pytest.raises(LidarError, match="empty file"):
            read_points(path, named)


def test_other_errors_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "points.bin"
    _points("nuscenes", 20).tofile(path)
    with pytest.raises(LidarError, match=r"among nuscenes, float32x5, .*, tensor, got 'pcd'"):
        read_points(path, "pcd")
    with pytest.raises(LidarError, match="magic 0x33ff1101"):
        read_points(path, "tensor")
    with pytest.raises(LidarError, match="Check the path"):
        read_points(tmp_path / "none.bin")
    for array in (np.zeros((3, 4), np.int32), np.zeros(5, np.float32), np.zeros((5, 2), np.float16)):
        write_tensor(tmp_path / "a.tensor", array)
        with pytest.raises(LidarError, match=r"float16 or float32 \[N, >= 3\], got"):
            read_points(tmp_path / "a.tensor")


def test_with_time_lag() -> None:
    points = _points("nuscenes", 6)
    lagged = with_time_lag(points, 0.25)
    assert lagged.dtype == np.float32 and lagged.shape == (6, 5)
    assert np.array_equal(lagged[:, :4], points[:, :4]) and (lagged[:, 4] == 0.25).all()
    assert (with_time_lag(_points("kitti", 6))[:, 4] == 0).all()
    with pytest.raises(LidarError, match=r"got \[6, 3\]"):
        with_time_lag(points[:, :3])
