# SPDX-License-Identifier: Apache-2.0
"""A synthetic spinning LiDAR: rays against a street scene, several sweeps from a moving car.

For tests and demonstrations that need no data set. The default sensor resembles the 32-beam sensor of
nuScenes (elevations -30.67 to +10.67 degrees, 20 turns a second, 1.84 m above the road), and ten sweeps of
the default scene fill CenterPoint's grid about as a real frame does. The same seed gives the same points.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.lidar.scene import Floats, Prism, Scene, steady, street_scene

__all__ = ["EgoMotion", "SpinningLidar", "simulate", "synthetic_points"]


@dataclass(frozen=True)
class SpinningLidar:
    """A LiDAR that turns a column of beams about the z axis."""

    beams: int = 32
    lowest_deg: float = -30.67
    highest_deg: float = 10.67
    columns: int = 1084
    """Firings per turn."""
    rate_hz: float = 20.0
    """Turns per second: sweeps are 1 / rate apart."""
    height: float = 1.84
    """Metres above the ground."""
    nearest: float = 1.5
    farthest: float = 95.0
    """Metres; returns outside are lost."""
    range_noise: float = 0.015
    """Standard deviation of the range, metres."""
    dropout: float = 0.15
    """Share of returns that are lost at random, near or far."""
    fading: float = 0.55
    """Share of a black surface's returns at the farthest range that are lost besides.

    The loss grows in proportion to the range; a surface of reflectivity r loses 40 / (40 + r) of it.
    """
    elevations_deg: tuple[float, ...] | None = None
    """Elevation of each beam, ascending, from `lowest_deg` to `highest_deg`; None spaces them evenly."""

    def __post_init__(self) -> None:
        if self.beams < 1 or self.columns < 8 or self.rate_hz <= 0 or self.height <= 0:
            raise LidarError(
                "A spinning LiDAR needs beams >= 1, columns >= 8, rate_hz > 0 and height > 0, got "
                f"{self.beams}, {self.columns}, {self.rate_hz:g} and {self.height:g}."
            )
        if not -90 < self.lowest_deg <= self.highest_deg < 90 or not 0 <= self.nearest < self.farthest:
            raise LidarError(
                "A spinning LiDAR needs -90 < lowest_deg <= highest_deg < 90 and 0 <= nearest < farthest, "
                f"got {self.lowest_deg:g}, {self.highest_deg:g}, {self.nearest:g} and {self.farthest:g}."
            )
        given = self.elevations_deg
        if given is not None and (
            len(given) != self.beams
            or any(b <= a for a, b in pairwise(given))
            or (given[0], given[-1]) != (self.lowest_deg, self.highest_deg)
        ):
            raise LidarError(
                f"A spinning LiDAR needs {self.beams} ascending elevations_deg from {self.lowest_deg:g} to "
                f"{self.highest_deg:g}, got {len(given)} from {min(given, default=0):g} to "
                f"{max(given, default=0):g}."
            )
        if not 0 <= self.dropout <= 1 or not 0 <= self.fading <= 1 or self.range_noise < 0:
            raise LidarError(
                "A spinning LiDAR needs dropout and fading from 0 to 1 and range_noise >= 0, got "
                f"{self.dropout:g}, {self.fading:g} and {self.range_noise:g}."
            )

    @property
    def slopes(self) -> Floats:
        """[beams] rise per metre of horizontal distance, ascending."""
        given = self.elevations_deg
        even = np.linspace(self.lowest_deg, self.highest_deg, self.beams)
        return steady(np.tan(np.radians(even if given is None else np.asarray(given, np.float64))))


@dataclass(frozen=True)
class EgoMotion:
    """Steady driving: the sensor's pose in older sweeps."""

    speed: float = 1.0
    """m/s along +y of the newest sweep. Slow city traffic: sweeps overlap about as in real frames."""
    yaw_rate: float = 0.03
    """rad/s."""

    def pose(self, time_lag: float) -> tuple[float, float, float]:
        """(x, y, heading) of the sensor `time_lag` seconds before the newest sweep, in that sweep's frame.

        The position is the end of a chord of about the arc's length, exact enough for half a second.
        """
        heading = -self.yaw_rate * time_lag
        c, s = steady(np.array([np.cos(0.5 * heading), np.sin(0.5 * heading)]))
        return float(self.speed * time_lag * s), float(-self.speed * time_lag * c), heading


def _bell(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Nearly normal numbers, mean 0 and deviation 1.

    Four uniform numbers summed: their stream is the same in every NumPy.
    """
    bell: Floats = (random.random((4, *shape)).sum(axis=0) - 2.0) * np.sqrt(3.0)
    return bell


def _ground_distance(
    scene: Scene, height: float, x: float, y: float, cos: Floats, sin: Floats, slopes: Floats
) -> Floats:
    """[A, B] horizontal distance to the uneven ground; infinite for rays that do not descend."""
    down = np.where(slopes < -1e-3, slopes, np.nan)
    distance = np.broadcast_to(-height / down, (len(cos), len(slopes)))
    # A fixed point: the plane at the height found last. Waves are so shallow that three rounds leave
    # millimetres.
    for _ in range(3):
        # Far beyond the range the value does not matter, but it must stay finite.
        reach = np.minimum(distance, 200.0)
        bump = scene.ground.height(x + reach * cos[:, None], y + reach * sin[:, None])
        distance = (bump - height) / down
    return np.where(np.isfinite(distance) & (distance > 0), distance, np.inf)


def _strike(
    prism: Prism, lag: float, pose: tuple[float, float, float], height: float, azimuth0: float,
    cos: Floats, sin: Floats, slopes: Floats, depth: Floats,
) -> tuple[npt.NDArray[np.intp], Floats] | None:  # fmt: skip
    """The columns [A'] that may meet `prism`, and how far away they do.

    Horizontal distances [A', B], infinite where a ray misses; None if no column looks at the prism.
    """
    offset = (
        pose[0] - (prism.plan.x - prism.velocity[0] * lag),
        pose[1] - (prism.plan.y - prism.velocity[1] * lag),
    )
    away, radius = float(np.sqrt(offset[0] ** 2 + offset[1] ** 2)), prism.plan.radius
    columns = len(cos)
    if away > radius + 1e-3:
        # Only the columns that look at the circle around the plan; one more on each side covers rounding.
        half = float(np.arcsin(min(radius / away, 1.0)))
        middle = (np.arctan2(-offset[1], -offset[0]) - azimuth0) * columns / (2 * np.pi)
        reach = half * columns / (2 * np.pi) + 1
        span = min(int(np.ceil(middle + reach)) - int(np.floor(middle - reach)) + 1, columns)
        looking = (int(np.floor(middle - reach)) + np.arange(span)) % columns
    else:
        looking = np.arange(columns)
    near, far = prism.plan.crossing(offset, cos[looking], sin[looking])
    hit = (far > near) & (near > 0)  # a prism around the sensor itself is not seen
    if not hit.any():
        return None
    looking, near, far = looking[hit], near[hit], far[hit]

    slope = np.where(np.abs(slopes) < 1e-9, 1e-9, slopes)
    a, b = (prism.bottom - height) / slope, (prism.top - height) / slope
    enter = np.maximum(near[:, None], np.minimum(a, b))
    leave = np.minimum(far[:, None], np.maximum(a, b))
    if prism.porosity > 0:
        enter = enter + depth[looking] * prism.porosity
    return looking, np.where(enter < leave, enter, np.inf)


def _sweep(
    scene: Scene, sensor: SpinningLidar, ego: EgoMotion, lag: float, random: np.random.Generator
) -> Floats:
    """The points of one turn, [N, 5] in the newest sweep's frame."""
    pose = ego.pose(lag)
    azimuth0 = pose[2] + float(random.random()) * 2 * np.pi / sensor.columns
    azimuth = azimuth0 + np.arange(sensor.columns) * (2 * np.pi / sensor.columns)
    cos, sin, slopes = steady(np.cos(azimuth)), steady(np.sin(azimuth)), sensor.slopes
    shape = (sensor.columns, sensor.beams)
    # How deep a ray gets into foliage, in mean free paths: a uniform number cubed is about exponential.
    # Products, as a power may differ in its last bit between machines (see `steady`).
    uniform = random.random(shape)
    depth = 3.0 * uniform * uniform * uniform

    distance = _ground_distance(scene, sensor.height, pose[0], pose[1], cos, sin, slopes)
    stretch = np.sqrt(1.0 + slopes**2)  # range per metre of horizontal distance
    # On the ground a shallow ray returns little.
    shine = np.broadcast_to(
        scene.ground.reflectivity * (0.4 + 0.6 * np.minimum(-2.0 * slopes, 1.0)), shape
    ).copy()
    for prism in scene.prisms:
        struck = _strike(prism, lag, pose, sensor.height, azimuth0, cos, sin, slopes, depth)
        if struck is None:
            continue
        looking, reach = struck
        nearer = reach < distance[looking]
        distance[looking] = np.where(nearer, reach, distance[looking])
        shine[looking] = np.where(nearer, prism.reflectivity, shine[looking])

    noise = sensor.range_noise * _bell(random, shape)
    brightness = 0.75 + 0.5 * random.random(shape)
    chance = random.random(shape)
    reach = distance * stretch
    seen = np.isfinite(reach) & (reach >= sensor.nearest) & (reach <= sensor.farthest)
    # The farther and the darker, the more often nothing comes back.
    lost = sensor.dropout + sensor.fading * (np.where(seen, reach, 0.0) / sensor.farthest) * (
        40.0 / (40.0 + np.maximum(shine, 0.0))
    )
    column, beam = np.nonzero(seen & (chance >= lost))

    flat = distance[column, beam] + noise[column, beam] / stretch[beam]
    points = np.empty((len(column), 5))
    points[:, 0] = pose[0] + flat * cos[column]
    points[:, 1] = pose[1] + flat * sin[column]
    points[:, 2] = flat * slopes[beam]
    fade = 1.0 / (1.0 + (flat / 60.0) ** 2)
    points[:, 3] = np.clip(np.round(shine[column, beam] * brightness[column, beam] * fade), 0, 255)
    points[:, 4] = lag
    return points


def simulate(
    scene: Scene,
    sensor: SpinningLidar | None = None,
    ego: EgoMotion | None = None,
    *,
    sweeps: int = 10,
    seed: int = 0,
) -> npt.NDArray[np.float32]:
    """The points that `sensor` measures in `scene` over `sweeps` turns, newest first.

    Sweep i is i / rate_hz seconds old; its points are given in the newest sweep's frame (x right, y ahead,
    z up, sensor at the origin), as data sets accumulate sweeps; moving things therefore smear. `seed` draws
    noise and dropouts. Within a turn the car stands still: points are as if already corrected for motion.

    Returns float32 [N, 5]: x, y, z in metres, intensity in whole steps 0..255, time lag in seconds.
    Raises `LidarError` when `sweeps` < 1.
    """
    if sweeps < 1:
        raise LidarError(f"A LiDAR frame needs sweeps >= 1, got {sweeps}.")
    sensor, ego = sensor or SpinningLidar(), ego or EgoMotion()
    random = np.random.Generator(np.random.PCG64(seed))
    turns = [_sweep(scene, sensor, ego, i / sensor.rate_hz, random) for i in range(sweeps)]
    return np.concatenate(turns).astype(np.float32)


def synthetic_points(seed: int = 0, *, sweeps: int = 10) -> npt.NDArray[np.float32]:
    """`sweeps` turns of the default sensor in the street of `seed`: float32 [N, 5], see `simulate`."""
    return simulate(street_scene(seed), sweeps=sweeps, seed=seed)
