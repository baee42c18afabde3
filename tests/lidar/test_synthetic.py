# SPDX-License-Identifier: Apache-2.0
"""The synthetic spinning LiDAR: rays meet what they should, frames repeat and resemble real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scn_fx.errors import LidarError
from scn_fx.lidar import (
    Disc,
    EgoMotion,
    Ground,
    Prism,
    Rectangle,
    Scene,
    SpinningLidar,
    simulate,
    street_scene,
    synthetic_points,
)

EXACT = SpinningLidar(range_noise=0.0, dropout=0.0, fading=0.0)
STILL = EgoMotion(0.0, 0.0)
FLAT = Ground(())


def test_flat_ground_is_a_plane_and_only_descending_beams_meet_it() -> None:
    points = simulate(Scene(FLAT, ()), EXACT, STILL, sweeps=1)
    assert np.allclose(points[:, 2], -EXACT.height, atol=1e-5)
    ranges = np.linalg.norm(points[:, :3].astype(float), axis=1)
    assert ranges.min() == pytest.approx(EXACT.height / np.sin(np.radians(30.67)), rel=1e-5)
    assert ranges.max() <= EXACT.farthest


def test_uneven_ground_is_met_where_it_is() -> None:
    ground = street_scene(3).ground
    points = simulate(Scene(ground, ()), EXACT, STILL, sweeps=1).astype(float)
    near = points[np.hypot(points[:, 0], points[:, 1]) < 30]
    height = ground.height(near[:, 0], near[:, 1]) - EXACT.height
    assert len(near) > 5000 and np.ptp(height) > 0.1
    assert np.abs(near[:, 2] - height).max() < 0.01


@pytest.mark.parametrize("heading", [0.0, 0.7, np.pi / 2])
def test_a_box_returns_points_on_its_surface_and_casts_a_shadow(heading: float) -> None:
    box = Prism(Rectangle(6.0, 8.0, 4.0, 2.0, heading), 0.0, 1.5, 100.0)
    with_box = simulate(Scene(FLAT, (box,)), EXACT, STILL, sweeps=1).astype(float)
    hits = with_box[with_box[:, 2] > -EXACT.height + 1e-3]
    assert len(hits) > 100
    x, y = hits[:, 0] - 6.0, hits[:, 1] - 8.0
    along = np.abs(np.cos(heading) * x + np.sin(heading) * y) / 2.0
    across = np.abs(np.cos(heading) * y - np.sin(heading) * x) / 1.0
    top = np.abs(hits[:, 2] - (1.5 - EXACT.height)) < 1e-4
    assert (np.maximum(along, across) < 1 + 1e-5).all()
    assert (top | (np.abs(np.maximum(along, across) - 1) < 1e-5)).all()
    # No ray passes through: nothing behind the box within its outline, seen from the sensor, below its top.
    behind = with_box[(np.hypot(with_box[:, 0], with_box[:, 1]) > 10.6) & (with_box[:, 2] < -1)]
    direction = np.arctan2(behind[:, 1], behind[:, 0]) - np.arctan2(8.0, 6.0)
    assert not ((np.abs(direction) < 0.02) & (np.hypot(behind[:, 0], behind[:, 1]) < 20)).any()


def test_a_pole_returns_points_on_its_mantle() -> None:
    pole = Prism(Disc(-5.0, 0.1, 0.3), 0.0, 6.0, 100.0)
    points = simulate(Scene(FLAT, (pole,)), EXACT, STILL, sweeps=1).astype(float)
    hits = points[points[:, 2] > -EXACT.height + 1e-3]
    assert len(hits) > 100
    assert np.abs(np.hypot(hits[:, 0] + 5.0, hits[:, 1] - 0.1) - 0.3).max() < 1e-5
    assert (hits[:, 0] > -5.0).all(), "only the side that faces the sensor returns"


def test_a_wall_all_round_is_closed() -> None:
    """Every column sees it: the choice of columns that look at a prism loses none."""
    walls = tuple(
        Prism(Rectangle(x, y, length, width), 0.0, 20.0, 50.0)
        for x, y, length, width in ((10, 0, 1, 22), (-10, 0, 1, 22), (0, 10, 22, 1), (0, -10, 22, 1))
    )
    points = simulate(Scene(FLAT, walls), EXACT, STILL, sweeps=1)
    assert len(points) == EXACT.beams * EXACT.columns
    assert np.abs(points[:, :2]).max() < 9.5 + 1e-4


def test_foliage_scatters_inside_its_outline() -> None:
    crown = Prism(Disc(8.0, 0.0, 2.0), 0.5, 4.0, 20.0, porosity=1.0)
    points = simulate(Scene(FLAT, (crown,)), EXACT, STILL, sweeps=1).astype(float)
    radius = np.hypot(points[:, 0] - 8.0, points[:, 1])[points[:, 2] > -EXACT.height + 1e-3]
    assert (radius <= 2.0 + 1e-5).all() and (radius < 1.5).sum() > 50


def test_sweeps_are_aligned_in_the_newest_frame() -> None:
    """A pole that stands still stays where it is while the sensor passes; a moving one leaves a trail."""
    poles = (
        Prism(Disc(5.0, 4.0, 0.2), 0.0, 6.0, 100.0),
        Prism(Disc(-5.0, 4.0, 0.2), 0.0, 6.0, 200.0, velocity=(0.0, 4.0)),
    )
    points = simulate(Scene(FLAT, poles), EXACT, EgoMotion(8.0, 0.1), sweeps=10).astype(float)
    high = points[points[:, 2] > -EXACT.height + 1e-3]
    assert np.allclose(np.unique(points[:, 4]), np.arange(10) * 0.05)
    still, moving = high[high[:, 0] > 0], high[high[:, 0] < 0]
    assert np.abs(np.hypot(still[:, 0] - 5, still[:, 1] - 4) - 0.2).max() < 1e-5
    centre = 4 - 4.0 * moving[:, 4]
    assert np.abs(np.hypot(moving[:, 0] + 5, moving[:, 1] - centre) - 0.2).max() < 1e-5


def test_noise_and_dropout_do_what_they_say() -> None:
    scene = Scene(FLAT, (Prism(Rectangle(20.0, 0.0, 1.0, 60.0), 0.0, 15.0, 200.0),))
    clean = simulate(scene, EXACT, STILL, sweeps=1)
    noisy = simulate(scene, SpinningLidar(range_noise=0.05, dropout=0.0, fading=0.0), STILL, sweeps=1)
    hits = noisy[noisy[:, 0] > 19.0].astype(float)
    hits = hits[np.abs(hits[:, 2]) < 1.5]
    distance = np.linalg.norm(hits[:, :3], axis=1)
    deviation = (hits[:, 0] - 19.5) * distance / hits[:, 0]
    assert deviation.std() == pytest.approx(0.05, rel=0.1)
    half = simulate(scene, SpinningLidar(dropout=0.5, fading=0.0), STILL, sweeps=1)
    assert len(half) == pytest.approx(0.5 * len(clean), rel=0.05)
    faded = simulate(scene, SpinningLidar(dropout=0.0, fading=1.0), STILL, sweeps=1).astype(float)
    share = [
        float(np.mean(np.linalg.norm(points[:, :3], axis=1) > 30)) for points in (faded, clean.astype(float))
    ]
    assert share[0] < share[1], "far returns fade first"
    assert len(simulate(scene, SpinningLidar(dropout=1.0), STILL, sweeps=1)) == 0


def test_points_have_the_columns_of_a_ten_sweep_frame() -> None:
    points = synthetic_points(1)
    assert points.dtype == np.float32 and points.shape[1] == 5 and np.isfinite(points).all()
    assert points[:, 3].min() >= 0 and points[:, 3].max() <= 255
    assert np.array_equal(points[:, 3], np.round(points[:, 3]))
    assert points[:, 3].max() > 150, "signs retro-reflect"
    assert np.allclose(np.unique(points[:, 4]), np.arange(10) * 0.05)
    ranges = np.linalg.norm(points[:, :3], axis=1)
    assert ranges.max() < 100


def test_the_seed_decides() -> None:
    assert np.array_equal(synthetic_points(5, sweeps=2), synthetic_points(5, sweeps=2))
    first, second = synthetic_points(5, sweeps=1), synthetic_points(6, sweeps=1)
    assert first.shape != second.shape or not np.array_equal(first, second)
    assert street_scene(5) == street_scene(5) and street_scene(5) != street_scene(6)
    scene = street_scene(5)
    assert not np.array_equal(
        simulate(scene, sweeps=1, seed=1)[:1000], simulate(scene, sweeps=1, seed=2)[:1000]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beams": 0}, "beams >= 1"),
        ({"columns": 7}, "columns >= 8"),
        ({"rate_hz": 0.0}, "rate_hz > 0"),
        ({"height": 0.0}, "height > 0"),
        ({"lowest_deg": 20.0}, "lowest_deg <= highest_deg"),
        ({"highest_deg": 90.0}, "highest_deg < 90"),
        ({"nearest": 100.0}, "nearest < farthest"),
        ({"dropout": 1.5}, "dropout and fading from 0 to 1"),
        ({"fading": -0.1}, "dropout and fading from 0 to 1"),
        ({"range_noise": -0.1}, "range_noise >= 0"),
    ],
)
def test_bad_sensors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(LidarError, match=message):
        SpinningLidar(**arguments)


def test_no_sweeps() -> None:
    with pytest.raises(LidarError, match="sweeps >= 1, got 0"):
        synthetic_points(sweeps=0)
