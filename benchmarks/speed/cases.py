# SPDX-License-Identifier: Apache-2.0
"""The networks that are timed, their frames, and the files that the engine runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import scn_fx
from scn_fx import quant, zoo
from scn_fx.exporting import export_onnx, quiet
from scn_fx.lidar import Frame
from scn_fx.operators.dialects import LIBSPCONV, SCN_FX

__all__ = ["NETWORKS", "Case", "Network", "make_case", "pillars", "write_files"]

Tensors = tuple[torch.Tensor, torch.Tensor]

_PATCHES, _PATCH = 4, 1000
"""Parts of a frame that weights and ranges are made with, and their sites: a whole frame takes minutes."""
_DEMO_COLUMNS = 5


@dataclass(frozen=True)
class Network:
    """A network of `scn_fx.zoo`."""

    name: str
    columns: int
    """Of the features that it takes."""
    dialects: tuple[str, ...]
    """That its file is timed in: more than one where the graphs differ, as by a concatenation."""
    pillars: bool = False
    """Whether it takes the columns of a frame, not its voxels."""
    published: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Arguments of the constructor for the published size, a grid (x, y, z) among them."""
    small: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def sizes(self, small: bool) -> dict[str, Any]:
        """Arguments of the constructor."""
        return dict(self.small if small else self.published)


NETWORKS = (
    Network(
        "SpUNet",
        6,
        (LIBSPCONV, SCN_FX),
        published=zoo.SpUNet.published,
        small={"grid": (64, 64, 40)},
    ),
    Network(
        "PillarNetEncoder",
        32,  # as many as PillarNet's reader makes, and its first level has
        (LIBSPCONV,),
        pillars=True,
        published={"grid": (1440, 1440, 40)},
        small={"grid": (64, 64, 40), "channels": (8, 8, 12, 16)},
    ),
)


@dataclass(frozen=True)
class Case:
    """A network and a frame, the same for all that run it."""

    network: Network
    model: Any
    """In evaluation mode, its BatchNorms as trained networks have them, no convolution with a bias."""
    frame: str
    source: str
    voxels: int
    features: npt.NDArray[np.float16]
    indices: npt.NDArray[np.int32]

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return iter((self.features, self.indices))

    @property
    def tensors(self) -> Tensors:
        """Features in float32, with the values that the engine gets, and indices."""
        return torch.from_numpy(self.features).float(), torch.from_numpy(self.indices)


def make_case(network: Network, frame: Frame | None, voxels: int, *, small: bool = False) -> Case:
    """The network with random weights for a frame.

    No convolution has a bias, because those of spconv's CPU build refuse it: spconv then does a little less
    work than in a network that has them, and the engine, which folds BatchNorms into biases, as much.

    Args:
        network: one of `NETWORKS`.
        frame: of voxels, whose grid the network gets; None makes one of the network's own grid.
        voxels: about how many that one has.
        small: a narrow network on a small grid, not the published one.
    """
    sizes = network.sizes(small)
    if frame is None:
        columns = _DEMO_COLUMNS if network.pillars else network.columns
        features, indices = zoo.demo_frame(0, voxels, grid=sizes["grid"], in_channels=columns)
        name, source = "demo", "a ground and two walls"
    else:
        features, indices = (torch.from_numpy(np.array(array)) for array in frame)
        z, y, x = frame.grid.spatial_shape
        sizes["grid"] = (x, y, z - 1)  # the networks add the one that the grid has added
        name, source = frame.name, frame.source
    count = len(indices)
    features = features.float()
    if network.pillars:
        features, indices = pillars(features, indices, network.columns)
    half = features.half()
    model = getattr(zoo, network.name)(half.shape[1], **sizes)
    for module in model.modules():
        if getattr(module, "bias", None) is not None and hasattr(module, "indice_key"):
            module.bias = None
    zoo.randomise_weights(model, *_part(half.float(), indices))
    return Case(network, model, name, source, count, half.numpy(), indices.int().numpy())


def pillars(features: torch.Tensor, indices: torch.Tensor, columns: int) -> Tensors:
    """Columns of voxels [N, 4] as a reader makes them: a random layer, a ReLU, the largest of each column.

    Returns features [M, columns] and indices [M, 3] (batch, y, x).
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(features.shape[1], columns, generator=generator)
    spread = features.std(0, unbiased=False).clamp(min=1e-3)
    values = torch.relu((features - features.mean(0)) / spread @ weight)
    sites, rows = torch.unique(indices[:, [0, 2, 3]], dim=0, return_inverse=True)
    most = torch.zeros(len(sites), columns)
    return most.scatter_reduce(0, rows[:, None].expand_as(values), values, "amax"), sites.int()


def _part(features: torch.Tensor, indices: torch.Tensor) -> Tensors:
    """Patches of the frame, from anywhere in it: its values in their range, and sites with neighbours."""
    if len(indices) <= _PATCHES * _PATCH:
        return features, indices
    generator = torch.Generator().manual_seed(0)
    places = indices[:, 1:].float()
    kept = torch.zeros(len(indices), dtype=torch.bool)
    for row in torch.randperm(len(indices), generator=generator)[:_PATCHES]:
        distance = (places - places[row]).square().sum(1)
        kept[distance.argsort(stable=True)[:_PATCH]] = True
    return features[kept], indices[kept]


def write_files(case: Case, folder: Path) -> dict[str, Path]:
    """The network in int8, calibrated, in each of its dialects."""
    frame = _part(*case.tensors)
    files = {}
    for dialect in case.network.dialects:
        files[dialect] = folder / f"{case.network.name}.{dialect}.onnx"
        with quiet():
            graph = scn_fx.capture(
                case.model,
                case.model.arguments(*frame),
                case.model.main_output,
                output_bound=max(200_000, 2 * len(case.indices)),
                dialect=dialect,
            )
            quant.calibrate(graph, [frame], method="max", progress=False)
            export_onnx(graph, files[dialect], dialect=dialect)
    return files
