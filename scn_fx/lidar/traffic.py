# SPDX-License-Identifier: Apache-2.0
"""Traffic scenes with labelled objects: roads, parking, pavements and what stands beside them, by seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scn_fx.lidar.actors import ACTORS
from scn_fx.lidar.boxes import Boxes
from scn_fx.lidar.roadside import furnish
from scn_fx.lidar.scene import Dice, Ground, Prism, Scene
from scn_fx.lidar.sensors import SENSORS
from scn_fx.lidar.synthetic import EgoMotion, SpinningLidar

__all__ = ["LabelledScene", "traffic_scene"]

_END = 58.0  # objects stand this far to every side: a little beyond CenterPoint's range of 54 m
_LANE = 3.4


@dataclass(frozen=True, eq=False)
class LabelledScene:
    """A scene, who measures it, and the boxes of its objects (points not yet counted)."""

    scene: Scene
    owners: tuple[int, ...]
    """For each prism of the scene the row of its object in `boxes`; -1 for what is no object."""
    boxes: Boxes
    """In the frame of the newest sweep, before `mount_yaw`."""
    sensor_name: str
    """Key of `SENSORS`."""
    sensor: SpinningLidar
    """Of that kind, at this scene's height."""
    ego: EgoMotion
    sweeps: int
    mount_yaw: float
    """Angle by which points and boxes are turned about z in the end: no heading is usual."""
    seed: int


class Layout:
    """A scene in the making: prisms, objects, and the ground that they take."""

    def __init__(self, dice: Dice, ground: Ground) -> None:
        self.dice, self.ground = dice, ground
        self.prisms: list[Prism] = []
        self.owners: list[int] = []
        self.objects: list[tuple[float, ...]] = []
        self._taken = np.empty((4096, 3))
        self._count = 0

    def height(self, x: float, y: float) -> float:
        """Of the ground at (x, y)."""
        return float(self.ground.height(np.array(x), np.array(y)))

    def free(self, x: float, y: float, length: float, width: float, heading: float) -> bool:
        """Whether a rectangle has room; if so it takes it. A chain of discs stands for the rectangle."""
        radius = 0.5 * width + 0.1
        number = max(1, math.ceil(length / max(width, 0.5)))
        at = (np.arange(number) - 0.5 * (number - 1)) * ((length - width) / max(number - 1, 1))
        px, py = x + math.cos(heading) * at, y + math.sin(heading) * at
        taken = self._taken[: self._count]
        gap = np.hypot(px[:, None] - taken[:, 0], py[:, None] - taken[:, 1]) - taken[:, 2]
        if (gap < radius).any() or self._count + number > len(self._taken):
            return False
        self._taken[self._count : self._count + number] = np.stack([px, py, np.full(number, radius)], 1)
        self._count += number
        return True

    def add(self, *prisms: Prism) -> None:
        """Things that are no objects, where they are told to be."""
        self.prisms += prisms
        self.owners += [-1] * len(prisms)

    def stand(self, prism: Prism) -> None:
        """One such thing on the ground at its place, if there is room."""
        plan = prism.plan
        length, width = getattr(plan, "length", 2 * plan.radius), getattr(plan, "width", 2 * plan.radius)
        if self.free(plan.x, plan.y, max(length, width), min(length, width), _long_axis(plan)):
            base = self.height(plan.x, plan.y)
            self.add(replace(prism, bottom=prism.bottom + base, top=prism.top + base))

    def place(self, kind: str, x: float, y: float, heading: float, speed: float) -> bool:
        """An object of the class `kind`, if there is room; whether there was."""
        actor = ACTORS[kind](self.dice)
        length, width, height = actor.size
        if abs(x) > _END or abs(y) > _END or not self.free(x, y, length, width, heading):
            return False
        velocity = (speed * math.cos(heading), speed * math.sin(heading))
        base = self.height(x, y)
        made = actor.prisms(x, y, base, heading, velocity)
        self.owners += [len(self.objects)] * len(made)
        self.prisms += made
        self.objects.append((x, y, base + 0.5 * height, *actor.size, heading, actor.label, *velocity))
        return True


def _long_axis(plan: object) -> float:
    heading = float(getattr(plan, "heading", 0.0))
    turned = getattr(plan, "width", 0.0) > getattr(plan, "length", 0.0)
    return heading + (0.5 * math.pi if turned else 0.0)


def _choice(dice: Dice, shares: dict[str, float]) -> str:
    """A key, as often as its share of 1 says."""
    rest = dice(0, 1)
    for name, share in shares.items():
        rest -= share
        if rest < 0:
            return name
    return next(iter(shares))


_DRIVING = {"car": 0.6, "van": 0.15, "truck": 0.15, "cyclist": 0.1}
_PARKED = {"car": 0.74, "van": 0.16, "truck": 0.1}


def _drive(layout: Layout, lanes: list[tuple[float, float]], place: Callable[..., bool]) -> None:
    """Fill lanes (offset from the road's middle, direction ±1); `place` turns road into world axes."""
    dice = layout.dice
    for offset, direction in lanes:
        pace, gap = dice(3, 13) * float(dice(0, 1) < 0.7), dice(8, 22)
        at = -_END + dice(0, gap)
        while at < _END:
            kind = _choice(dice, _DRIVING)
            speed = pace * dice(0.85, 1.15) * (0.5 if kind == "cyclist" else 1.0)
            wander, turn = dice(-0.4, 0.4), dice(-0.05, 0.05)
            place(kind, at, offset + wander, (0.0 if direction > 0 else math.pi) + turn, speed)
            at += gap * dice(0.6, 1.7) + (8.0 if kind == "truck" else 0.0)


def _park(layout: Layout, side: float, edge: float, place: Callable[..., bool]) -> None:
    """A row of parked vehicles beside the road, along or across it."""
    dice = layout.dice
    across = dice(0, 1) < 0.25
    fill = dice(0.3, 0.95)
    at = -_END + dice(0, 5)
    while at < _END:
        if dice(0, 1) < fill:
            kind = _choice(dice, _PARKED)
            heading = (0.5 * math.pi if across else 0.0) + math.pi * float(dice(0, 1) < 0.5)
            offset = side * (edge + (2.8 if across else 1.1) + dice(-0.2, 0.2))
            place(kind, at, offset, heading + dice(-0.06, 0.06), 0.0)
        at += dice(2.6, 3.4) if across else dice(5.4, 8.0)


def _walk(layout: Layout, edge: float) -> None:
    """Pedestrians, alone and in groups, and cyclists, on and beside the roads."""
    dice = layout.dice
    for _ in range(int(dice(4, 14))):
        x = dice(-edge, edge) if dice(0, 1) < 0.2 else math.copysign(edge + dice(0.5, 9), dice(-1, 1))
        y, heading = dice(-48, 48), dice(0, 2 * math.pi)
        speed = dice(0.4, 1.9) * float(dice(0, 1) < 0.7)
        for _ in range(1 if dice(0, 1) < 0.6 else int(dice(2, 5))):
            apart = (dice(-1.6, 1.6), dice(-1.6, 1.6))
            layout.place("pedestrian", x + apart[0], y + apart[1], heading + dice(-0.3, 0.3), speed)
    for _ in range(int(dice(2, 8))):
        x = math.copysign(edge + dice(-1.0, 4.0), dice(-1, 1))
        heading = (0.5 if dice(0, 1) < 0.5 else -0.5) * math.pi + dice(-0.3, 0.3)
        layout.place("cyclist", x, dice(-48, 48), heading, dice(2, 6.5) * float(dice(0, 1) < 0.8))


def traffic_scene(seed: int) -> LabelledScene:
    """The scene of `seed`: a road with traffic, often a crossing, one of several sensors on a moving car.

    Equal seeds give equal scenes. Boxes whose middle is more than 58 m away along x or y do not exist.
    """
    dice = Dice(seed)
    name = _choice(dice, {key: setup.share for key, setup in SENSORS.items()})
    setup = SENSORS[name]
    sweeps = int(dice(setup.sweeps[0], setup.sweeps[1] + 1 - 1e-9))
    sensor = replace(setup.sensor, height=setup.sensor.height + dice(-0.15, 0.2))

    waves = [(dice(0.01, 0.03), dice(-0.1, 0.1), dice(-0.1, 0.1), dice(0, 6.28)) for _ in range(3)]
    waves.append((dice(0.05, 0.4), dice(0.005, 0.02), dice(0.01, 0.025), dice(-0.5, 0.5)))
    ground = Ground(tuple(waves), reflectivity=dice(8, 22))
    # Waves are about the mean height; the sensor stands on the ground where it is.
    here = float(ground.height(np.array(0.0), np.array(0.0)))
    sensor = replace(sensor, height=max(sensor.height + here, 1.2))

    layout = Layout(dice, ground)
    layout.free(0.0, 0.0, 6.5, 2.6, 0.5 * math.pi)  # the ego vehicle
    number = int(dice(1, 3.999))  # lanes in each direction
    half = number * _LANE
    middle = -_LANE * (int(dice(0, number - 1e-9)) + 0.5)  # the ego vehicle drives right of it

    def along(kind: str, at: float, offset: float, heading: float, speed: float) -> bool:
        return layout.place(kind, middle - offset, at, heading + 0.5 * math.pi, speed)

    lanes = [(side * _LANE * (i + 0.5), -side) for side in (-1.0, 1.0) for i in range(number)]
    _drive(layout, lanes, along)
    crossing = dice(-40, 40) if dice(0, 1) < 0.5 else None
    if crossing is not None:

        def across(kind: str, at: float, offset: float, heading: float, speed: float) -> bool:
            return layout.place(kind, at, float(crossing) + offset, heading, speed)

        _drive(layout, [(-0.5 * _LANE, 1.0), (0.5 * _LANE, -1.0)], across)
    for side in (-1.0, 1.0):
        if dice(0, 1) < 0.75:
            _park(layout, side, half, along)
    _walk(layout, abs(middle) + half)
    furnish(layout, middle, half, crossing)

    rows = np.array(layout.objects, np.float64).reshape(-1, 10)
    centre = rows[:, :3] - np.array([0.0, 0.0, sensor.height])
    boxes = Boxes.of(centre, rows[:, 3:6], rows[:, 6], rows[:, 7], rows[:, 8:10])
    ego = EgoMotion(dice(0, 11) * float(dice(0, 1) < 0.8), dice(-0.12, 0.12))
    turn = dice(-math.pi, math.pi)
    scene = Scene(ground, tuple(layout.prisms))
    return LabelledScene(scene, tuple(layout.owners), boxes, name, sensor, ego, sweeps, turn, seed)
