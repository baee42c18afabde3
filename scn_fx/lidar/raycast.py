# SPDX-License-Identifier: Apache-2.0
"""Labelled scenes measured on a torch device: all rays of a frame at once, thousands of scenes in minutes.

The same rays meet the same prisms as in `scn_fx.lidar.simulate`, in float32; what is random (losses, noise,
foliage, brightness) is a function of the seed and the number of the ray, so that it is one and the same on
every device. Needs torch, and is therefore not imported with the package.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from scn_fx.lidar.boxes import Boxes
from scn_fx.lidar.scene import Disc, Floats, Prism, Scene, steady
from scn_fx.lidar.synthetic import EgoMotion, SpinningLidar
from scn_fx.lidar.traffic import LabelledScene, traffic_scene

__all__ = ["Measurement", "SceneArrays", "measure"]

_NOWHERE = torch.iinfo(torch.int64).max
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class SceneArrays:
    """A scene and its measurement as plain numbers, cheap to hand to another process.

    P prisms, T columns of rays (all sweeps, newest first), B beams, M objects.
    """

    prisms: npt.NDArray[np.float32]
    """[P, 14]: disc (0/1), x, y, half length or radius, half width, cos, sin, bottom, top, shine, velocity
    x, y, porosity, radius of the circle around it."""
    owners: npt.NDArray[np.int64]
    """[P]: the object of each prism; M for none."""
    columns: npt.NDArray[np.float32]
    """[T, 5]: cos and sin of the azimuth, the sensor's x and y, the time lag."""
    slopes: npt.NDArray[np.float32]
    """[B]: rise per metre."""
    waves: npt.NDArray[np.float32]
    """[W, 4]: of the ground."""
    ground_shine: float
    sensor: SpinningLidar
    mount_yaw: float
    seed: int
    boxes: Boxes

    @classmethod
    def of(
        cls,
        scene: Scene,
        sensor: SpinningLidar,
        ego: EgoMotion,
        *,
        sweeps: int,
        seed: int,
        phases: npt.ArrayLike | None = None,
        owners: npt.ArrayLike | None = None,
        boxes: Boxes | None = None,
        mount_yaw: float = 0.0,
    ) -> SceneArrays:
        """The numbers of a measurement.

        `phases` [sweeps] are the parts of a column, 0 to 1, by which the first ray of each turn is ahead of
        the sensor's heading; drawn from `seed` if left out.
        """
        if phases is None:
            phases = np.random.Generator(np.random.PCG64([seed, 1])).random(sweeps)
        boxes = boxes if boxes is not None else Boxes.none()
        mine = np.full(len(scene.prisms), -1, np.int64) if owners is None else np.asarray(owners, np.int64)
        columns = [
            _turn(sensor, ego, i / sensor.rate_hz, float(phase)) for i, phase in enumerate(np.asarray(phases))
        ]
        return cls(
            np.array([_row(prism) for prism in scene.prisms], np.float32).reshape(-1, 14),
            np.where(mine < 0, len(boxes), mine),
            np.concatenate(columns).astype(np.float32),
            sensor.slopes.astype(np.float32),
            np.array(scene.ground.waves, np.float32).reshape(-1, 4),
            scene.ground.reflectivity,
            sensor,
            mount_yaw,
            seed,
            boxes,
        )

    @classmethod
    def labelled(cls, scene: LabelledScene) -> SceneArrays:
        """Those of a labelled scene."""
        return cls.of(
            scene.scene,
            scene.sensor,
            scene.ego,
            sweeps=scene.sweeps,
            seed=scene.seed,
            owners=scene.owners,
            boxes=scene.boxes,
            mount_yaw=scene.mount_yaw,
        )

    def thinned(self, step: int) -> SceneArrays:
        """The same scene seen by every `step`-th column of rays alone: a coarser sensor, for tests."""
        return replace(self, columns=self.columns[::step])

    @classmethod
    def traffic(cls, seed: int) -> SceneArrays:
        """Those of `traffic_scene(seed)`."""
        return cls.labelled(traffic_scene(seed))


def _row(prism: Prism) -> list[float]:
    plan = prism.plan
    rest = [prism.bottom, prism.top, prism.reflectivity, *prism.velocity, prism.porosity, plan.radius]
    if isinstance(plan, Disc):
        return [1.0, plan.x, plan.y, plan.radius, 0.0, 1.0, 0.0, *rest]
    cos, sin = float(steady(np.cos(plan.heading))), float(steady(np.sin(plan.heading)))
    return [0.0, plan.x, plan.y, 0.5 * plan.length, 0.5 * plan.width, cos, sin, *rest]


def _turn(sensor: SpinningLidar, ego: EgoMotion, lag: float, phase: float) -> Floats:
    """[A, 5] columns of one turn."""
    x, y, heading = ego.pose(lag)
    step = 2 * np.pi / sensor.columns
    azimuth = heading + phase * step + np.arange(sensor.columns) * step
    fixed = np.broadcast_to(np.array([x, y, lag]), (sensor.columns, 3))
    return np.concatenate([steady(np.cos(azimuth))[:, None], steady(np.sin(azimuth))[:, None], fixed], 1)


@dataclass(frozen=True, eq=False)
class Measurement:
    """What the sensor gives, on the device."""

    points: torch.Tensor
    """float32 [N, 5]: x, y, z in metres, intensity 0..255, time lag in seconds; newest sweep first."""
    returns: torch.Tensor
    """int64 [M]: how many of them each object of the scene gave."""
    centre: torch.Tensor
    """float32 [M, 3] of the boxes, turned by the mount's yaw like the points."""
    yaw: torch.Tensor
    """float32 [M], -π to π."""
    velocity: torch.Tensor
    """float32 [M, 2]."""
    scene: SceneArrays

    def boxes(self) -> Boxes:
        """The labelled boxes with the number of their returns, in host memory."""
        of = self.scene.boxes
        return Boxes.of(
            self.centre.cpu().numpy(),
            of.size,
            self.yaw.cpu().numpy(),
            of.label,
            self.velocity.cpu().numpy(),
            self.returns.cpu().numpy(),
        )


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """32 well mixed bits of 32 bits, in int64 (two rounds of xor-shift and multiply)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def _uniform(count: int, streams: int, seed: int, device: torch.device) -> torch.Tensor:
    """[streams, count] numbers from 0 up to 1: a hash of seed, stream and place, equal on all devices."""
    # NumPy's seed sequence spreads the seed, of any size, over one word for each stream.
    words = np.random.SeedSequence(seed).generate_state(streams).astype(np.int64)
    place = _mixed(torch.arange(count, device=device))
    mixed = _mixed(place[None] ^ torch.from_numpy(words).to(device)[:, None])
    return (mixed >> 8).float() * 2.0**-24


class _Rays:
    """The tensors of one measurement, and the steps of it."""

    def __init__(self, scene: SceneArrays, device: torch.device) -> None:
        def moved(values: npt.NDArray[Any]) -> torch.Tensor:
            tensor = torch.from_numpy(values)
            return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

        self.scene, self.device, self.sensor = scene, device, scene.sensor
        self.prisms, self.owners = moved(scene.prisms), moved(scene.owners)
        self.cos, self.sin, self.x, self.y, self.lag = moved(scene.columns).unbind(1)
        self.slopes = moved(scene.slopes)
        self.shape = (len(self.cos), len(self.slopes))

    def ground(self) -> torch.Tensor:
        """[T, B] horizontal distance to the uneven ground; infinite for rays that do not descend."""
        height = self.sensor.height
        infinite = torch.full((), torch.inf, device=self.device)
        down = torch.where(self.slopes < -1e-3, self.slopes, torch.nan)
        distance = (-height / down).expand(self.shape)
        for _ in range(3):
            reach = distance.clamp(max=200.0)
            px, py = self.x[:, None] + reach * self.cos[:, None], self.y[:, None] + reach * self.sin[:, None]
            bump = torch.zeros_like(px)
            for amplitude, kx, ky, phase in self.scene.waves.tolist():
                bump += amplitude * torch.sin(kx * px + ky * py + phase)
            distance = (bump - height) / down
        return torch.where(torch.isfinite(distance) & (distance > 0), distance, infinite)

    def crossings(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Columns and prisms [Q] of the plans that columns cross within reach, and where they enter and leave
        them."""
        disc, px, py, half_length, half_width, c, s, _, _, _, vx, vy, _, _ = self.prisms.unbind(1)
        dx = self.x[:, None] - (px - vx * self.lag[:, None])
        dy = self.y[:, None] - (py - vy * self.lag[:, None])
        cos, sin = self.cos[:, None], self.sin[:, None]
        near = torch.full_like(dx, -torch.inf)
        far = torch.full_like(dx, torch.inf)
        for half, start, direction in (
            (half_length, c * dx + s * dy, c * cos + s * sin),
            (half_width, c * dy - s * dx, c * sin - s * cos),
        ):
            slope = torch.where(direction.abs() < 1e-9, 1e-9, direction)
            a, b = (-half - start) / slope, (half - start) / slope
            near = torch.maximum(near, torch.minimum(a, b))
            far = torch.minimum(far, torch.maximum(a, b))
        middle, across = -(dx * cos + dy * sin), dx * sin - dy * cos
        rest = half_length * half_length - across * across
        half = rest.clamp(min=0.0).sqrt()
        round_ = disc > 0
        near = torch.where(round_, torch.where(rest > 0, middle - half, torch.inf), near)
        far = torch.where(round_, torch.where(rest > 0, middle + half, -torch.inf), far)
        hit = (far > near) & (near > 0) & (near < self.sensor.farthest)
        column, prism = hit.nonzero(as_tuple=True)
        return column, prism, near[column, prism], far[column, prism]

    def first(self, depth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[T, B] horizontal distance to the first thing met, and which prism it is: P for the ground."""
        count = len(self.prisms)
        ground = self.ground()
        if not count:
            return ground, torch.zeros_like(ground, dtype=torch.int64)
        column, prism, near, far = self.crossings()
        of = self.prisms[prism]
        height = self.sensor.height
        slope = torch.where(self.slopes.abs() < 1e-9, 1e-9, self.slopes)
        a, b = (of[:, 7:8] - height) / slope, (of[:, 8:9] - height) / slope
        enter = torch.maximum(near[:, None], torch.minimum(a, b))
        leave = torch.minimum(far[:, None], torch.maximum(a, b))
        enter = enter + depth[column] * of[:, 12:13]
        # Positive floats are in the order of their bits: one minimum finds the distance and the prism.
        key = (enter.view(torch.int32).long() << 32) | prism[:, None]
        key = torch.where(enter < leave, key, _NOWHERE)
        ray = column[:, None] * self.shape[1] + torch.arange(self.shape[1], device=self.device)
        best = (ground.view(torch.int32).long() << 32 | count).flatten()
        best.scatter_reduce_(0, ray.flatten(), key.flatten(), "amin")
        best = best.view(self.shape)
        return (best >> 32).int().view(torch.float32), best & _MASK


@torch.no_grad()
def measure(scene: SceneArrays, device: torch.device | str = "cpu") -> Measurement:
    """What the sensor measures in `scene`, computed on `device`; see `scn_fx.lidar.simulate`.

    Equal scenes give equal points on one device; between devices sines and square roots may differ in their
    last bit, and points by micrometres.
    """
    device = torch.device(device)
    rays, sensor = _Rays(scene, device), scene.sensor
    shape = rays.shape
    depth, brightness, chance, u, v = _uniform(shape[0] * shape[1], 5, scene.seed, device).view(5, *shape)
    # How deep a ray gets into foliage, in mean free paths: a uniform number cubed is about exponential.
    distance, prism = rays.first(3.0 * depth * depth * depth)

    slopes = rays.slopes
    stretch = (1.0 + slopes * slopes).sqrt()
    ground_shine = scene.ground_shine * (0.4 + 0.6 * (-2.0 * slopes).clamp(max=1.0))
    on_ground = prism == len(rays.prisms)
    if len(rays.prisms):
        shine = torch.where(on_ground, ground_shine, rays.prisms[prism.clamp(max=len(rays.prisms) - 1), 9])
    else:
        shine = ground_shine.expand(shape)
    reach = distance * stretch
    seen = torch.isfinite(reach) & (reach >= sensor.nearest) & (reach <= sensor.farthest)
    lost = sensor.dropout + sensor.fading * (torch.where(seen, reach, 0.0) / sensor.farthest) * (
        40.0 / (40.0 + shine.clamp(min=0.0))
    )
    column, beam = (seen & (chance >= lost)).nonzero(as_tuple=True)

    at = column * shape[1] + beam
    # Box and Muller: two uniform numbers make a normal one.
    bell = (-2.0 * (1.0 - u.flatten()[at]).log()).sqrt() * torch.cos(2 * np.pi * v.flatten()[at])
    flat = distance.flatten()[at] + sensor.range_noise * bell / stretch[beam]
    x, y = rays.x[column] + flat * rays.cos[column], rays.y[column] + flat * rays.sin[column]
    fade = 1.0 / (1.0 + (flat / 60.0) ** 2)
    light = shine.flatten()[at] * (0.75 + 0.5 * brightness.flatten()[at]) * fade
    cos, sin = float(np.cos(scene.mount_yaw)), float(np.sin(scene.mount_yaw))
    columns = (cos * x - sin * y, sin * x + cos * y, flat * slopes[beam], light.round().clamp(0, 255))
    points = torch.stack([*columns, rays.lag[column]], 1)

    boxes = scene.boxes
    # The last row of `owners` is the ground; objects are numbered 0 to M - 1, M stands for the rest.
    owners = torch.cat([rays.owners, rays.owners.new_full((1,), len(boxes))])
    returns = torch.zeros(len(boxes) + 1, dtype=torch.int64, device=device)
    owner = owners[prism.flatten()[at]]
    returns.index_add_(0, owner, torch.ones_like(owner))
    turn = torch.tensor([[cos, -sin], [sin, cos]], device=device)
    centre = torch.from_numpy(boxes.centre).to(device)
    level = (turn * centre[:, None, :2]).sum(2)
    yaw = torch.from_numpy(boxes.yaw).to(device) + scene.mount_yaw
    return Measurement(
        points,
        returns[:-1],
        torch.cat([level, centre[:, 2:]], 1),
        torch.remainder(yaw + np.pi, 2 * np.pi) - np.pi,
        (turn * torch.from_numpy(boxes.velocity).to(device)[:, None]).sum(2),
        scene,
    )
