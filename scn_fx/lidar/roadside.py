# SPDX-License-Identifier: Apache-2.0
"""What stands beside a road and is no object: houses, walls, fences, trees, poles, bins, car parks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scn_fx.lidar.scene import Disc, Prism, Rectangle

if TYPE_CHECKING:
    from scn_fx.lidar.traffic import Layout

__all__ = ["furnish"]

_END = 64.0
_CROSSING = 6.0  # half of the gap that a crossing road leaves


def furnish(layout: Layout, middle: float, half: float, crossing: float | None) -> None:
    """Both sides of a road along y whose middle is at x = `middle`; nothing stands on the crossing road."""
    dice = layout.dice
    if crossing is not None:
        for side in (-1.0, 1.0):  # keep the crossing road free for what drives there
            layout.free(middle + side * (half + 30.0), crossing, 50.0, 2 * _CROSSING - 1.0, 0.0)
    for side in (-1.0, 1.0):
        edge = middle + side * half
        pavement = dice(2.0, 5.0)
        _kerb(layout, edge, side, pavement, crossing)
        style = dice(0, 1)
        if style < 0.15:
            _car_park(layout, edge + side * (pavement + 3.0), side)
            front = pavement + 22.0
        else:
            front = pavement + (dice(0.5, 2.5) if style < 0.55 else dice(4, 11))
        if style < 0.85:
            _houses(layout, edge + side * front, side)
        _greenery(layout, edge, side, pavement, front, dense=style >= 0.85)
        _furniture(layout, edge, side, pavement)


def _kerb(layout: Layout, edge: float, side: float, width: float, crossing: float | None) -> None:
    """A step of 14 cm, in two pieces where a road crosses."""
    pieces = [(-_END, _END)]
    if crossing is not None:
        pieces = [(-_END, crossing - _CROSSING), (crossing + _CROSSING, _END)]
    for low, high in pieces:
        at = low
        while at < high:  # short pieces follow the ground
            length = min(16.0, high - at)
            y, x = at + 0.5 * length, edge + side * (2.9 + 0.5 * width)
            base = layout.height(x, y)
            layout.add(Prism(Rectangle(x, y, width, length), base - 0.5, base + 0.1, 22.0))
            at += length


def _houses(layout: Layout, front: float, side: float) -> None:
    dice = layout.dice
    y = -_END
    while y < _END:
        length, depth, gap = dice(7, 24), dice(7, 14), dice(1.0, 9)
        x, centre = front + side * (dice(0, 2) + 0.5 * depth), y + 0.5 * length
        shine = dice(12, 50)
        house = Prism(Rectangle(x, centre, depth, length, dice(-0.03, 0.03)), -1.0, dice(3.5, 14), shine)
        layout.stand(house)
        if dice(0, 1) < 0.6:  # a porch or bay breaks up the flat face
            bay = Rectangle(x - side * (0.5 * depth + 0.9), centre + dice(-2, 2), 1.2, dice(1.2, 4))
            layout.stand(Prism(bay, -0.5, dice(2.2, 4), shine))
        if dice(0, 1) < 0.5:
            low = Rectangle(front + side * 0.3, y + length + 0.5 * gap, 0.25, 0.8 * gap)
            fence = dice(0, 1) < 0.4
            layout.stand(Prism(low, -0.5, dice(0.8, 2.2), dice(15, 35), porosity=0.3 if fence else 0.0))
        y += length + gap


def _car_park(layout: Layout, x: float, side: float) -> None:
    """Two or three rows of vehicles across the road's direction."""
    dice = layout.dice
    for row in range(int(dice(2, 3.999))):
        at = dice(-45, -20)
        end = at + dice(20, 70)
        while at < end:
            if dice(0, 1) < 0.6:
                kind = "car" if dice(0, 1) < 0.85 else "van"
                heading = math.pi * float(dice(0, 1) < 0.5) + dice(-0.05, 0.05)
                layout.place(kind, x + side * (row * 6.2 + dice(-0.3, 0.3)), at, heading, 0.0)
            at += dice(2.5, 3.0)


def _greenery(
    layout: Layout, edge: float, side: float, pavement: float, front: float, *, dense: bool
) -> None:
    dice = layout.dice
    for _ in range(int(dice(4, 14)) * (3 if dense else 1)):
        y, far = dice(-_END, _END), dice(0, 1) < 0.5
        x = edge + side * (dice(pavement, pavement + 25.0) if far or dense else dice(2.4, pavement + 1))
        trunk, crown, stem = dice(0.1, 0.3), dice(1.2, 3.2), dice(1.6, 3.0)
        base = layout.height(x, y)
        if layout.free(x, y, 2 * trunk, 2 * trunk, 0.0):
            top = base + stem + 1.7 * crown
            layout.add(
                Prism(Disc(x, y, trunk), base - 0.3, base + stem + 0.5, 25.0),
                Prism(Disc(x, y, crown), base + stem, top, 20.0, porosity=dice(0.4, 1.3)),
            )
    for _ in range(int(dice(2, 9)) * (2 if dense else 1)):
        at = (edge + side * (pavement + dice(0, max(front - pavement, 0.5))), dice(-_END, _END))
        if dice(0, 1) < 0.5:
            hedge = Rectangle(*at, dice(0.5, 1.1), dice(2, 10))
            layout.stand(Prism(hedge, -0.2, dice(0.7, 1.9), 18.0, porosity=dice(0.1, 0.3)))
        else:
            radius = dice(0.3, 1.1)
            layout.stand(Prism(Disc(*at, radius), -0.2, dice(0.5, 2.0), 18.0, porosity=dice(0.1, 0.4)))


def _furniture(layout: Layout, edge: float, side: float, pavement: float) -> None:
    """Lamp posts, signs, bollards, bins, boxes and shelters: much that resembles a person from afar."""
    dice = layout.dice
    y = -_END + dice(0, 20)
    while y < _END:
        layout.stand(Prism(Disc(edge + side * dice(2.5, 3.2), y, dice(0.06, 0.14)), -0.3, dice(4, 8), 80.0))
        y += dice(12, 30)
    for _ in range(int(dice(4, 16))):
        x, y, what = edge + side * dice(2.4, 2.6 + pavement), dice(-50, 50), dice(0, 1)
        if what < 0.3:
            layout.stand(Prism(Disc(x, y, dice(0.05, 0.12)), -0.3, dice(0.7, 1.2), dice(30, 150)))
        elif what < 0.55:
            turned = dice(0, math.pi)
            bin_ = Rectangle(x, y, dice(0.4, 0.9), dice(0.4, 0.8), turned)
            layout.stand(Prism(bin_, -0.3, dice(0.8, 1.4), dice(10, 60)))
        elif what < 0.75:
            post = Disc(x, y, 0.04)
            base = layout.height(x, y)
            if layout.free(x, y, 0.3, 0.3, 0.0):
                plate = Rectangle(x, y + 0.06, dice(0.4, 0.8), 0.05, dice(-0.4, 0.4))
                layout.add(
                    Prism(post, base - 0.3, base + 2.8, 60.0), Prism(plate, base + 2.0, base + 2.8, 230.0)
                )
        elif what < 0.9:
            box = Rectangle(x, y, dice(0.4, 0.7), dice(0.8, 1.6))
            layout.stand(Prism(box, -0.3, dice(1.1, 1.7), dice(20, 60)))
        else:
            shelter = Rectangle(x + side * 0.8, y, 0.15, dice(2.5, 4.5))
            layout.stand(Prism(shelter, -0.3, 2.4, 30.0, porosity=0.2))
