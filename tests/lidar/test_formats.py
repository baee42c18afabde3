# SPDX-License-Identifier: Apache-2.0
"""A named format is held against the columns: what contradicts it is refused, with the format that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from scn_fx.errors import LidarError
from scn_fx.lidar import POINT_FORMATS, read_points, read_sweep, synthetic_points, with_time_lag, write_tensor


def _sweeps(dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Three sweeps of the synthetic sensor: intensity 0 to 255, time lag 0, 0.05 and 0.1 s."""
    return synthetic_points(sweeps=3)[::7].astype(dtype)


def _with(points: npt.NDArray[Any], *columns: Any) -> npt.NDArray[Any]:
    return np.column_stack([points[:, :3], *columns]).astype(points.dtype)


def _rings(count: int) -> npt.NDArray[np.int64]:
    return np.arange(count) % 32


def _cases() -> dict[str, tuple[npt.NDArray[Any], str, str]]:
    """Points, the format that the user names, and what the error says."""
    lags, half = _sweeps(), _sweeps(np.float16)
    rings = _rings(len(lags))
    return {
        "a time lag is no ring": (
            lags,
            "nuscenes",
            "ring would have fractions .0 to 0.1., not whole numbers.*Its values fit float32x5 .*: pass that",
        ),
        "a ring is no time lag": (
            _with(lags, lags[:, 3], rings),
            "float32x5",
            "time lag would span 0 to 31 s, not 0 to 10 s.*Its values fit nuscenes ",
        ),
        "few rings are no time lag either": (
            _with(lags, lags[:, 3], rings % 4),
            "float32x5",
            "time lag would have whole numbers alone .0 to 3 s..*Its values fit nuscenes ",
        ),
        "a float16 ring": (
            _with(half, half[:, 3], rings),
            "float16x5",
            "time lag would span 0 to 31 s.*No other known format fits either.*write_tensor",
        ),
        "a time lag in milliseconds": (
            _with(lags, lags[:, 3], lags[:, 4] * 1000),
            "float32x5",
            "time lag would span 0 to 100 s.*nuscenes",
        ),
        "intensity is no reflectance": (
            lags[:, :4],
            "kitti",
            "reflectance would span [0-9]+ to [0-9]+, not 0 to 1.*Its values fit float32x4 ",
        ),
        "elongation is no ring": (
            _with(lags, lags[:, 3] / 255, np.linspace(0, 1.3, len(lags))),
            "nuscenes",
            "ring would have fractions.*Its values fit float32x5 .*; waymo .*: pass the format that its",
        ),
        "laser before offset": (
            _with(lags, lags[:, 3], lags[:, 4], rings),
            "argoverse2",
            "laser would have fractions",
        ),
        "intensity of 16 bits": (
            _with(lags, lags[:, 3] * 200, rings),
            "nuscenes",
            "intensity would span [0-9]+ to [0-9]+, not 0 to 255.*No other known format",
        ),
        "float32 read as float16": (lags, "float16x5", ".*would .*Its values fit float32x5 "),
    }


@pytest.mark.parametrize("name", _cases())
def test_a_named_format_that_the_columns_contradict_is_refused(tmp_path: Path, name: str) -> None:
    points, named, message = _cases()[name]
    points = points[: len(points) // 60 * 60]
    path = tmp_path / "points.bin"
    points.tofile(path)
    with pytest.raises(LidarError, match=rf"expected points as {named} .*, but {message}"):
        read_points(path, named)
    write_tensor(tmp_path / "points.tensor", points)
    assert np.array_equal(read_points(tmp_path / "points.tensor", "tensor"), points), "the way round"


def test_a_time_lag_is_kept_and_a_ring_becomes_one(tmp_path: Path) -> None:
    lags = _sweeps()
    path = tmp_path / "points.bin"
    for name, points in (("float32x5", lags), ("float16x5", lags.astype(np.float16))):
        points.tofile(path)
        assert np.array_equal(read_sweep(path, name), points) and points[:, 4].max() > 0
    _with(lags, lags[:, 3], _rings(len(lags))).tofile(path)
    assert (read_sweep(path, "nuscenes")[:, 4] == 0).all() and (read_points(path)[:, 4] > 0).any()


def test_sensor_faults_do_not_contradict_a_named_format(tmp_path: Path) -> None:
    points = _with(_sweeps(), _sweeps()[:, 3], _rings(len(_sweeps())))
    points[5] = np.nan
    points[6, 0] = 4000.0
    points.tofile(tmp_path / "points.bin")
    assert np.array_equal(read_points(tmp_path / "points.bin", "nuscenes"), points, equal_nan=True)
    points[:] = np.nan
    points.tofile(tmp_path / "points.bin")
    with pytest.raises(LidarError, match="not one of its rows is finite"):
        read_points(tmp_path / "points.bin", "nuscenes")


def test_with_time_lag_does_not_overwrite_one() -> None:
    with pytest.raises(LidarError, match=r"got 0 to 0.1 with fractions.*points\[:, :4\]"):
        with_time_lag(_sweeps())
    assert with_time_lag(_sweeps()[:, :4], 0.25)[0, 4] == 0.25


def test_every_format_names_its_columns() -> None:
    for name, layout in POINT_FORMATS.items():
        assert layout.name == name and layout.columns[:3] == ("x", "y", "z")
        assert layout.record_bytes == len(layout.columns) * np.dtype(layout.dtype).itemsize
        assert str(layout).startswith(f"{name} (float")
