# SPDX-License-Identifier: Apache-2.0
"""A street made of upright prisms, for the synthetic LiDAR: cars, buildings, kerbs, walls, poles, trees.

Everything that stands on the street is an upright prism: a convex ground plan (a turned rectangle or a
disc) between two heights. A ray of given azimuth crosses the plan in one interval of horizontal distance,
whatever its elevation, so one crossing serves all beams of a column. World axes: x right, y along the
street, z up, metres; the sensor of the newest sweep is at the origin, the ground about `-height` below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Dice", "Disc", "Floats", "Ground", "Prism", "Rectangle", "Scene", "steady", "street_scene"]

Floats = npt.NDArray[np.float64]


def steady(values: Floats) -> Floats:
    """`values` rounded to multiples of 2**-30.

    Sine, cosine and the like differ in their last bits between math libraries and instruction sets. Rounded
    far above those bits, and followed only by exactly rounded arithmetic, a scene comes out the same on
    every machine.
    """
    return np.round(values * 2.0**30) * 2.0**-30


@dataclass(frozen=True)
class Rectangle:
    """A ground plan: a rectangle turned about its centre."""

    x: float
    y: float
    length: float
    """Extent along the heading, metres."""
    width: float
    """Extent across the heading, metres."""
    heading: float = 0.0
    """Angle of the length against +x, radians."""

    @property
    def radius(self) -> float:
        """Radius of the circle around it."""
        return 0.5 * float(np.sqrt(self.length**2 + self.width**2))

    def crossing(self, offset: tuple[float, float], cos: Floats, sin: Floats) -> tuple[Floats, Floats]:
        """Where rays of azimuths (cos, sin) [A] from `offset` (relative to the centre) enter and leave.

        Two arrays [A] of horizontal distances; enter > leave is a miss. The slab test in the plan's own axes.
        """
        c, s = (float(v) for v in steady(np.array([np.cos(self.heading), np.sin(self.heading)])))
        near, far = np.full(cos.shape, -np.inf), np.full(cos.shape, np.inf)
        for half, start, direction in (
            (0.5 * self.length, c * offset[0] + s * offset[1], c * cos + s * sin),
            (0.5 * self.width, c * offset[1] - s * offset[0], c * sin - s * cos),
        ):
            # A ray along a side never meets it: a tiny slope of either sign puts that crossing out of reach.
            slope = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
            a, b = (-half - start) / slope, (half - start) / slope
            near, far = np.maximum(near, np.minimum(a, b)), np.minimum(far, np.maximum(a, b))
        return near, far


@dataclass(frozen=True)
class Disc:
    """A ground plan: a disc."""

    x: float
    y: float
    radius: float

    def crossing(self, offset: tuple[float, float], cos: Floats, sin: Floats) -> tuple[Floats, Floats]:
        """Where rays of azimuths (cos, sin) [A] from `offset` (relative to the centre) enter and leave.

        Two arrays [A] of horizontal distances; enter > leave is a miss.
        """
        middle = -(offset[0] * cos + offset[1] * sin)
        across = offset[0] * sin - offset[1] * cos
        rest = self.radius * self.radius - across * across
        half = np.sqrt(np.maximum(rest, 0.0))
        miss = rest <= 0
        return np.where(miss, np.inf, middle - half), np.where(miss, -np.inf, middle + half)


@dataclass(frozen=True)
class Prism:
    """An upright prism: a ground plan between two heights above the ground."""

    plan: Rectangle | Disc
    bottom: float
    """Metres above the ground's mean height."""
    top: float
    reflectivity: float
    """Intensity of a near, square hit, 0..255."""
    velocity: tuple[float, float] = (0.0, 0.0)
    """(x, y) in m/s: where it was in older sweeps."""
    porosity: float = 0.0
    """0 is solid; otherwise the mean free path in metres of a ray inside (foliage)."""


@dataclass(frozen=True)
class Ground:
    """Slightly uneven ground: a plane with long, shallow waves."""

    waves: tuple[tuple[float, float, float, float], ...]
    """Each (amplitude in m, wave number along x in rad/m, along y, phase in rad)."""
    reflectivity: float = 14.0

    def height(self, x: Floats, y: Floats) -> Floats:
        """Metres above the mean ground at (x, y)."""
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape))
        for amplitude, kx, ky, phase in self.waves:
            total += amplitude * steady(np.sin(kx * x + ky * y + phase))
        return total


@dataclass(frozen=True)
class Scene:
    """What stands around the sensor."""

    ground: Ground
    prisms: tuple[Prism, ...]


_STREET_HALF_WIDTH = 7.0
_FRONT = 13.5  # distance of the house fronts from the middle of the street
_END = 62.0  # the street is built this far to either side: beyond the corner of CenterPoint's range


class Dice:
    """Uniform numbers alone.

    Their stream is the same in every NumPy; those of other distributions need not be.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.Generator(np.random.PCG64(seed))

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._random.random())


def _houses(dice: Dice, side: float) -> list[Prism]:
    prisms, y = [], -_END
    while y < _END:
        length, depth, gap = dice(9, 22), dice(8, 14), dice(1.5, 7)
        front = _FRONT + dice(-1.0, 2.5)
        middle = y + 0.5 * length
        plan = Rectangle(side * (front + 0.5 * depth), middle, depth, length)
        prisms.append(Prism(plan, 0.0, dice(5, 14), dice(18, 45)))
        # A porch or bay in front of the house breaks up its flat face.
        bay = Rectangle(side * (front - 0.5), middle + dice(-3, 3), 1.0, dice(1.5, 4))
        prisms.append(Prism(bay, 0.0, dice(2.5, 4), dice(18, 45)))
        # A garden wall closes some of the gaps.
        if dice(0, 1) < 0.5:
            wall = Rectangle(side * (front + 0.3), y + length + 0.5 * gap, 0.25, gap)
            prisms.append(Prism(wall, 0.0, dice(0.8, 2.2), dice(15, 35)))
        y += length + gap
    return prisms


def _car(
    x: float, y: float, heading: float, dice: Dice, velocity: tuple[float, float] = (0.0, 0.0)
) -> list[Prism]:
    length, width, height = dice(3.9, 4.9), dice(1.7, 1.95), dice(1.4, 1.8)
    shine = dice(15, 90)
    body = Rectangle(x, y, length, width, heading)
    cabin = Rectangle(x, y, 0.55 * length, 0.88 * width, heading)
    return [
        Prism(body, 0.25, 0.6 * height, shine, velocity),
        Prism(cabin, 0.6 * height, height, 0.6 * shine, velocity),
    ]


def _parked(dice: Dice, side: float) -> list[Prism]:
    prisms, y = [], -50.0
    while y < 50.0:
        y += dice(5.2, 12)
        prisms += _car(
            side * (_STREET_HALF_WIDTH - 1.2 + dice(-0.15, 0.15)), y, np.pi / 2 + dice(-0.04, 0.04), dice
        )
    return prisms


def _pavement(dice: Dice, side: float) -> list[Prism]:
    """Kerb, lamp posts, trees, hedges and people of one side."""
    kerb = Rectangle(side * (_STREET_HALF_WIDTH + 3.0), 0.0, 6.0, 2 * _END)
    prisms = [Prism(kerb, -0.3, 0.14, 22.0)]
    y = -50.0 + dice(0, 8)
    while y < 50.0:
        x = side * (_STREET_HALF_WIDTH + dice(0.5, 0.9))
        if dice(0, 1) < 0.4:
            prisms.append(Prism(Disc(x, y, 0.09), 0.0, dice(5, 7), dice(60, 120)))
            # The sign on the post is what retro-reflects.
            prisms.append(Prism(Rectangle(x, y + 0.12, 0.6, 0.06), 2.1, 2.9, 230.0))
        else:
            crown = dice(1.4, 2.6)
            prisms.append(Prism(Disc(x + side * 0.6, y, dice(0.12, 0.25)), 0.0, 2.6, 25.0))
            prisms.append(
                Prism(Disc(x + side * 0.6, y, crown), 2.4, 2.4 + 1.8 * crown, 20.0, porosity=dice(0.5, 1.2))
            )
        y += dice(6, 12)
    for _ in range(7):
        x, y = side * (_STREET_HALF_WIDTH + dice(1.2, 5.5)), dice(-40, 40)
        prisms.append(Prism(Disc(x, y, 0.25), 0.1, dice(1.55, 1.9), dice(10, 40), (0.0, dice(-1.5, 1.5))))
    for _ in range(4):
        hedge = Rectangle(side * (_FRONT - dice(0.8, 1.6)), dice(-45, 45), 0.9, dice(3, 9))
        prisms.append(Prism(hedge, 0.0, dice(0.9, 1.6), 18.0, porosity=0.25))
    return prisms


def street_scene(seed: int = 0) -> Scene:
    """A street with houses, garden walls, hedges, kerbs, lamp posts, trees, people, and parked and moving
    cars.

    The same seed gives the same scene.
    """
    dice = Dice(seed)
    # Shallow enough (slopes below 2 %) that a ray at -1.3 degrees meets the ground once. The last wave is
    # the long rise and fall of a town, which spreads the road over several voxel slices as real frames have
    # it.
    waves = [(dice(0.01, 0.03), dice(-0.1, 0.1), dice(-0.1, 0.1), dice(0, 6.28)) for _ in range(3)]
    waves.append((0.35, dice(0.01, 0.02), dice(0.015, 0.025), dice(-0.5, 0.5)))
    prisms: list[Prism] = []
    for side in (-1.0, 1.0):
        prisms += _houses(dice, side) + _parked(dice, side) + _pavement(dice, side)
    for lane, speed in ((-1.9, -8.0), (1.9, 7.0)):
        for y in (-34.0, -14.0, 17.0, 38.0):
            at = y + dice(-3, 3)
            prisms += _car(lane + dice(-0.3, 0.3), at, np.pi / 2, dice, (0.0, speed + dice(-2, 2)))
    return Scene(Ground(tuple(waves)), tuple(prisms))
