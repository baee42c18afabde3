# SPDX-License-Identifier: Apache-2.0
"""What a recipe says of a published network: where it is, how it is built, on what, and which outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.models.originals.checkout import Checkout

__all__ = ["Case", "Config", "Network", "Wrapped", "pillars", "voxels"]


@dataclass(frozen=True)
class Case:
    """A model in evaluation mode and the arguments of its forward.

    `frame` is features and indices where the forward makes the indices itself; the graph takes these.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] | None = None
    frame: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True)
class Network:
    """A published network.

    Attributes:
        key: short name on the command line.
        title: what it is.
        repository: "owner/name" of the checkout that has it.
        build: makes the model and its arguments from the checkout.
        outputs: each is a line of the table; `output` of scn_fx.capture.
        options: further arguments of scn_fx.capture.
        also: more checkouts that it imports from.
        roots: folders of the checkout that imports start from.
        aliases: modules that stand for others.
        outside: why outputs are refused, by output; of a network whose outputs are all refused for one
            reason, that reason.
    """

    key: str
    title: str
    repository: str
    build: Callable[[Checkout], Case]
    outputs: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    roots: tuple[str, ...] = ("",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    outside: str | Mapping[Any, str] = ""

    def reason(self, output: Any) -> str:
        """Why the output is refused; empty for one that should pass."""
        return self.outside if isinstance(self.outside, str) else self.outside.get(output, "")


class Config(dict[str, Any]):
    """A dict whose keys are attributes too, as EasyDict and mmcv's Config have it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Wrapped(nn.Module):
    """Modules in a row, or a function of them, where a repository calls them from a larger class."""

    def __init__(self, forward: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args: Any) -> Any:
        """What the given function makes of the modules and the arguments."""
        return self._forward(self, *args)


def voxels(
    channels: int, grid: tuple[int, int, int], sites: int, batch: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features float32 [N, channels] and indices int32 [N, 4] of `batch` frames on a grid (x, y, z)."""
    from scn_fx.zoo import demo_frame

    frames = [demo_frame(seed, sites, grid=grid, in_channels=channels) for seed in range(batch)]
    for number, (_, indices) in enumerate(frames):
        indices[:, 0] = number
    return torch.cat([f for f, _ in frames]), torch.cat([i for _, i in frames])


def pillars(channels: int, grid: tuple[int, int], sites: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features float32 [N, channels] and indices int32 [N, 3] of a frame on a grid (x, y)."""
    _, indices = voxels(channels, (*grid, 8), sites)
    flat = torch.unique(indices[:, [0, 2, 3]], dim=0)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(flat), channels, generator=generator), flat
