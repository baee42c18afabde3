# SPDX-License-Identifier: Apache-2.0
"""Beam patterns of well-known spinning LiDARs, for synthetic frames of several sensors."""

from __future__ import annotations

from dataclasses import dataclass

from scn_fx.lidar.synthetic import SpinningLidar

__all__ = ["SENSORS", "SensorSetup"]

_HDL_64E = (
    *(round(-24.33 + i / 2, 4) for i in range(32)),
    *(round(2.0 - i / 3, 4) for i in reversed(range(32))),
)
_VLP_32C = (
    *(-25.0, -15.639, -11.31, -8.843, -7.254, -6.148, -5.333, -4.667, -4.0, -3.667, -3.333, -3.0),
    *(-2.667, -2.333, -2.0, -1.667, -1.333, -1.0, -0.667, -0.333, 0.0, 0.333, 0.667, 1.0, 1.333),
    *(1.667, 2.333, 3.333, 4.667, 7.0, 10.333, 15.0),
)


@dataclass(frozen=True)
class SensorSetup:
    """A sensor, and how many of its turns make a frame."""

    sensor: SpinningLidar
    sweeps: tuple[int, int]
    """Fewest and most sweeps of a frame."""
    share: float
    """How often it appears among synthetic scenes; the shares of all setups add up to 1."""


SENSORS: dict[str, SensorSetup] = {
    "HDL-32E": SensorSetup(SpinningLidar(), (10, 10), 0.5),
    "VLP-32C": SensorSetup(
        SpinningLidar(
            32, -25.0, 15.0, columns=1800, rate_hz=10, height=1.75, dropout=0.1, elevations_deg=_VLP_32C
        ),
        (1, 4),
        0.1,
    ),
    "HDL-64E": SensorSetup(
        SpinningLidar(
            64, -24.33, 2.0, columns=2000, rate_hz=10, height=1.73, dropout=0.08, elevations_deg=_HDL_64E
        ),
        (1, 2),
        0.16,
    ),
    "OS1-64": SensorSetup(
        SpinningLidar(64, -16.6, 16.6, columns=1024, rate_hz=10, height=1.8, dropout=0.12), (1, 4), 0.1
    ),
    "OS1-128": SensorSetup(
        SpinningLidar(128, -22.5, 22.5, columns=1024, rate_hz=10, height=1.8, dropout=0.12), (1, 2), 0.14
    ),
}
"""By name, with the elevations of their data sheets: 32, 64 and 128 beams, even and uneven."""
