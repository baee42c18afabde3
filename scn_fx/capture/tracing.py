# SPDX-License-Identifier: Apache-2.0
"""What one capture knows while the model's forward runs: names of its layers, rulebooks, kernel maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from scn_fx.geometry import ConvGeometry

__all__ = ["KernelMap", "Tracing"]


@dataclass(frozen=True)
class KernelMap:
    """A kernel map in the traced program; kept in spconv's `indice_dict` under its `indice_key`.

    Attributes:
        value: the map, int32 [M, K].
        rulebook: its name in the graph.
        geometry: what it was made for.
        indices: input sites, int32 [N, 4].
        out_indices: output sites, int32 [M, 4]; the same object for a submanifold map.
    """

    value: torch.Tensor
    rulebook: str
    geometry: ConvGeometry
    indices: torch.Tensor
    out_indices: torch.Tensor


@dataclass
class Tracing:
    """State of one capture."""

    model: nn.Module
    output_bound: int
    axes: str
    _paths: dict[int, str] = field(init=False)
    _layers: set[str] = field(default_factory=set)
    _rulebooks: set[str] = field(default_factory=set)
    _strided: list[KernelMap] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._paths = {id(module): path for path, module in self.model.named_modules()}

    def path(self, module: Any) -> str:
        """Path of a module in the model; empty for the model itself."""
        return self._paths.get(id(module), f"unregistered.{type(module).__name__}")

    def describe(self, module: Any) -> str:
        """A module in words, for messages: path and class."""
        path = self.path(module)
        return (
            f"{path!r} ({type(module).__name__})" if path else f"the model itself ({type(module).__name__})"
        )

    def layer_name(self, module: Any) -> str:
        """A unique name for one call of a convolution: its path, numbered where a module is called again."""
        return _claim(self.path(module) or type(module).__name__, self._layers)

    def rulebook(self, stem: str) -> str:
        """A unique name for a kernel map, from an `indice_key` or a layer's name.

        Two branches of a network may use one key for different maps; spconv keeps them apart, so must we.
        """
        return _claim(stem, self._rulebooks)

    def strided(self, indices: torch.Tensor, geometry: ConvGeometry) -> KernelMap | None:
        """The map that this geometry already made over these sites.

        Two strided convolutions over the same sites have the same output sites, and their results may be
        added; that shows in the graph only if they share the map.
        """
        for known in self._strided:
            if known.indices is indices and known.geometry == geometry:
                return known
        return None

    def remember(self, made: KernelMap) -> None:
        """Let `strided` find the map."""
        self._strided.append(made)


def _claim(stem: str, taken: set[str]) -> str:
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    taken.add(name)
    return name
