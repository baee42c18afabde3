# SPDX-License-Identifier: Apache-2.0
"""Labelled scenes: objects have room, boxes hold their prisms, equal seeds give equal scenes."""

from __future__ import annotations

import numpy as np
import pytest

from scn_fx.errors import LidarError
from scn_fx.lidar.actors import ACTORS
from scn_fx.lidar.boxes import CLASSES, Boxes
from scn_fx.lidar.scene import Dice, Disc
from scn_fx.lidar.sensors import SENSORS
from scn_fx.lidar.synthetic import SpinningLidar
from scn_fx.lidar.traffic import traffic_scene


@pytest.mark.parametrize("kind", CLASSES)
def test_an_actor_is_as_large_as_its_box(kind: str) -> None:
    for seed in range(20):
        actor = ACTORS[kind](Dice(seed))
        length, width, height = actor.size
        assert CLASSES[actor.label] == kind
        prisms = actor.prisms(0.0, 0.0, 0.0, 0.0, (0.0, 0.0))
        plans = [prism.plan for prism in prisms]
        half = [(p.radius, p.radius) if isinstance(p, Disc) else (p.length / 2, p.width / 2) for p in plans]
        x = [p.x + side * h[0] for p, h in zip(plans, half, strict=True) for side in (-1, 1)]
        y = [p.y + side * h[1] for p, h in zip(plans, half, strict=True) for side in (-1, 1)]
        assert np.abs(x).max() <= length / 2 + 1e-9 and np.abs(y).max() <= width / 2 + 1e-9
        assert np.ptp(x) > 0.5 * length and np.ptp(y) > 0.5 * width
        assert max(p.top for p in prisms) == pytest.approx(height)
        assert min(p.bottom for p in prisms) >= 0


def test_the_seed_decides() -> None:
    first, again, other = traffic_scene(1), traffic_scene(1), traffic_scene(2)
    assert first.scene == again.scene and first.owners == again.owners and first.ego == again.ego
    assert np.array_equal(first.boxes.centre, again.boxes.centre)
    assert first.scene != other.scene


def test_scenes_have_what_they_should() -> None:
    scenes = [traffic_scene(seed) for seed in range(30)]
    assert {scene.sensor_name for scene in scenes} == set(SENSORS)
    assert {scene.sensor.beams for scene in scenes} == {32, 64, 128}
    counts = np.sum([np.bincount(scene.boxes.label, minlength=5) for scene in scenes], 0)
    assert (counts > 60).all() and counts.argmax() == 0, counts
    for scene in scenes:
        low, high = SENSORS[scene.sensor_name].sweeps
        assert low <= scene.sweeps <= high
        assert len(scene.owners) == len(scene.scene.prisms)
        assert set(scene.owners) == {-1, *range(len(scene.boxes))}
        # Nobody stands in another: middles of vehicles are at least a vehicle's width apart.
        vehicles = scene.boxes[scene.boxes.label < 3].centre[:, :2]
        gaps = np.hypot(*(vehicles[:, None] - vehicles[None]).transpose(2, 0, 1)) + 9 * np.eye(len(vehicles))
        assert gaps.min(initial=9) > 1.5
        away = np.hypot(scene.boxes.centre[:, 0], scene.boxes.centre[:, 1])
        assert away.min() > 1.3, "not in the ego vehicle"


def test_prisms_lie_in_the_box_of_their_owner() -> None:
    scene = traffic_scene(7)
    for prism, owner in zip(scene.scene.prisms, scene.owners, strict=True):
        if owner >= 0:
            x, y, z = scene.boxes.centre[owner]
            length, width, height = scene.boxes.size[owner]
            assert np.hypot(prism.plan.x - x, prism.plan.y - y) <= np.hypot(length, width) / 2
            bottom, top = (h - scene.sensor.height - z for h in (prism.bottom, prism.top))
            assert bottom >= -height / 2 - 1e-4 and top <= height / 2 + 1e-4
            assert np.allclose(prism.velocity, scene.boxes.velocity[owner], atol=1e-5)


def test_beams_of_data_sheets() -> None:
    assert {setup.sensor.beams for setup in SENSORS.values()} == {32, 64, 128}
    assert sum(setup.share for setup in SENSORS.values()) == pytest.approx(1.0)
    slopes = SENSORS["HDL-64E"].sensor.slopes
    assert len(slopes) == 64 and (np.diff(slopes) > 0).all()
    assert np.degrees(np.arctan(slopes[[0, -1]])) == pytest.approx([-24.33, 2.0])
    for given in ((-10.0, 0.0), (-10.0, 5.0, 0.0), (-9.0, -2.0, 0.0)):
        with pytest.raises(LidarError, match="3 ascending elevations_deg from -10 to 0, got"):
            SpinningLidar(3, -10.0, 0.0, elevations_deg=given)


def test_boxes_have_corners_and_check_themselves() -> None:
    box = Boxes.of([(1, 2, 0)], [(4, 2, 1.5)], [np.pi / 2], [0])
    corners = np.array([(0, 4), (0, 0), (2, 0), (2, 4)])
    assert np.allclose(box.corners()[0], corners, atol=1e-6)
    assert len(Boxes.none()) == 0 and Boxes.none().corners().shape == (0, 4, 2)
    with pytest.raises(LidarError, match=r"expected yaw of shape \[1\] .* got \[2\]"):
        Boxes.of([(1, 2, 0)], [(4, 2, 1.5)], [0, 0], [0])
    with pytest.raises(LidarError, match="NaN or infinity in centre"):
        Boxes.of([(np.nan, 2, 0)], [(4, 2, 1.5)], [0], [0])
    with pytest.raises(LidarError, match="sizes > 0, got 0"):
        Boxes.of([(1, 2, 0)], [(4, 0, 1.5)], [0], [0])
