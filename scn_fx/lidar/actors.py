# SPDX-License-Identifier: Apache-2.0
"""What takes part in traffic: cars, vans, trucks, pedestrians and cyclists, each built of a few prisms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scn_fx.lidar.boxes import CLASSES
from scn_fx.lidar.scene import Dice, Disc, Prism, Rectangle

__all__ = ["ACTORS", "Actor"]


@dataclass(frozen=True)
class _Part:
    """One prism of an actor: its plan about (along, across) from the actor's middle; width 0 is a disc."""

    along: float
    across: float
    length: float
    """Of a disc: its diameter."""
    width: float
    bottom: float
    top: float
    shine: float
    porosity: float = 0.0


@dataclass(frozen=True)
class Actor:
    """An actor that heads along +x: its box, and the prisms in it."""

    label: int
    size: tuple[float, float, float]
    """Length, width, height, metres."""
    parts: tuple[_Part, ...]

    def prisms(
        self, x: float, y: float, ground: float, heading: float, velocity: tuple[float, float]
    ) -> list[Prism]:
        """The prisms where it stands at (x, y) on ground of the height `ground`, heading as told."""
        cos, sin = math.cos(heading), math.sin(heading)
        made = []
        for part in self.parts:
            px, py = x + cos * part.along - sin * part.across, y + sin * part.along + cos * part.across
            plan: Rectangle | Disc = Disc(px, py, 0.5 * part.length)
            if part.width > 0:
                plan = Rectangle(px, py, part.length, part.width, heading)
            heights = (ground + part.bottom, ground + part.top)
            made.append(Prism(plan, *heights, part.shine, velocity, part.porosity))
        return made


def _car(dice: Dice) -> Actor:
    length, width, height = dice(3.6, 5.0), dice(1.65, 1.95), dice(1.38, 1.78)
    paint, waist = dice(8, 90), dice(0.52, 0.62) * height
    cabin = dice(0.48, 0.62) * length
    parts = (
        _Part(0.0, 0.0, length, width, 0.22, waist, paint),
        _Part(-dice(0.02, 0.10) * length, 0.0, cabin, 0.86 * width, waist, height, 0.5 * paint),
    )
    return Actor(CLASSES.index("car"), (length, width, height), parts)


def _van(dice: Dice) -> Actor:
    length, width, height = dice(4.8, 6.3), dice(1.85, 2.1), dice(1.95, 2.7)
    paint, bonnet = dice(15, 90), dice(0.6, 1.2)
    parts = (
        _Part(0.0, 0.0, length, width, 0.28, 0.5 * height, paint),
        _Part(-0.5 * bonnet, 0.0, length - bonnet, 0.95 * width, 0.5 * height, height, 0.8 * paint),
    )
    return Actor(CLASSES.index("van"), (length, width, height), parts)


def _truck(dice: Dice) -> Actor:
    length, width, height = dice(6.8, 11.5), dice(2.3, 2.6), dice(2.8, 3.9)
    paint = dice(15, 80)
    if dice(0, 1) < 0.3:  # a bus
        parts: tuple[_Part, ...] = (_Part(0.0, 0.0, length, width, 0.3, height, paint),)
    else:
        cab, gap = dice(1.9, 2.5), dice(0.2, 0.7)
        cargo = length - cab - gap
        parts = (
            _Part(0.5 * (length - cab), 0.0, cab, 0.95 * width, 0.4, dice(0.72, 0.95) * height, paint),
            _Part(-0.5 * (length - cargo), 0.0, cargo, width, 1.0, height, dice(20, 90)),
            _Part(0.0, 0.0, length, 0.7 * width, 0.5, 1.0, 15.0),
        )
    return Actor(CLASSES.index("truck"), (length, width, height), parts)


def _pedestrian(dice: Dice) -> Actor:
    height = dice(1.1, 1.5) if dice(0, 1) < 0.12 else dice(1.52, 1.92)
    stride, cloth = dice(0.1, 0.5), dice(8, 60)
    torso, hip = dice(0.36, 0.5), 0.48 * height
    parts = (
        _Part(0.5 * stride, 0.09, 0.17, 0.0, 0.0, hip, dice(8, 40)),
        _Part(-0.5 * stride, -0.09, 0.17, 0.0, 0.0, hip, dice(8, 40)),
        _Part(0.0, 0.0, torso, 0.0, hip, 0.86 * height, cloth),
        _Part(0.0, 0.0, 0.2, 0.0, 0.86 * height, height, dice(15, 45)),
    )
    return Actor(CLASSES.index("pedestrian"), (max(stride + 0.35, torso + 0.02), torso + 0.2, height), parts)


def _cyclist(dice: Dice) -> Actor:
    length, height, handle = dice(1.55, 1.9), dice(1.55, 1.85), dice(0.45, 0.65)
    torso = dice(0.36, 0.48)
    parts = (
        _Part(0.0, 0.0, length, 0.07, 0.05, 0.65, dice(20, 90), porosity=0.12),
        _Part(0.32 * length, 0.0, 0.06, handle, 0.9, 1.05, 40.0),
        _Part(0.0, 0.0, 0.3, 0.24, 0.35, 0.95, dice(8, 40)),
        _Part(0.03, 0.0, torso, 0.0, 0.9, height - 0.24, dice(8, 60)),
        _Part(0.15, 0.0, 0.22, 0.0, height - 0.24, height, dice(15, 60)),
    )
    return Actor(CLASSES.index("cyclist"), (length, max(handle, torso), height), parts)


ACTORS: dict[str, Callable[[Dice], Actor]] = {
    "car": _car,
    "van": _van,
    "truck": _truck,
    "pedestrian": _pedestrian,
    "cyclist": _cyclist,
}
"""What makes an actor of each of `CLASSES`."""
