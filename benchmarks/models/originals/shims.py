# SPDX-License-Identifier: Apache-2.0
"""The few functions of mmcv, mmengine, mmdet, timm and gorilla without which no network can be built.

They have the interface of those packages, as far as sparse networks use it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import spconv.pytorch as spconv
import torch
from torch import nn

__all__ = ["SHIMS"]

_NORMS = {"BN": nn.BatchNorm2d, "BN1d": nn.BatchNorm1d, "BN2d": nn.BatchNorm2d, "LN": nn.LayerNorm}
_SHORT = {nn.BatchNorm1d: "bn", nn.BatchNorm2d: "bn", nn.LayerNorm: "ln"}
_ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


class _Registry:
    """As mmcv's registry of layers: what files of the open checkout have registered in it."""

    def __init__(self) -> None:
        self._known: dict[str, type] = {}

    def register_module(self, name: str | None = None, **unused: Any) -> Callable[[type], type]:
        """A decorator."""

        def registered(cls: type) -> type:
            self._known[name or cls.__name__] = cls
            return cls

        return registered

    def get(self, name: str) -> type | None:
        """The class of that name, if the module that has it is still there."""
        found = self._known.get(name)
        module = None if found is None else sys.modules.get(found.__module__)
        return found if found is not None and vars(module or object).get(found.__name__) is found else None


CONV_LAYERS = _Registry()


def build_conv_layer(config: Mapping[str, Any] | None, *args: Any, **kwargs: Any) -> nn.Module:
    """A layer by the name in ``config["type"]``: the checkout's, spconv's, or torch's."""
    options = dict(config or {"type": "Conv2d"})
    name = options.pop("type")
    layer = CONV_LAYERS.get(name) or getattr(spconv, name, None) or getattr(nn, name)
    if "Inverse" in name:
        for unused in ("stride", "padding", "transposed"):
            kwargs.pop(unused, None)
    return layer(*args, **kwargs, **options)


def build_norm_layer(config: Mapping[str, Any], channels: int, postfix: int | str = "") -> Any:
    """(name, layer) as mmcv's."""
    options = {key: value for key, value in config.items() if key != "requires_grad"}
    layer = _NORMS[options.pop("type")]
    return f"{_SHORT[layer]}{postfix}", layer(channels, **options)


def build_activation_layer(config: Mapping[str, Any]) -> nn.Module:
    """A layer of torch by its name."""
    options = dict(config)
    return getattr(nn, options.pop("type"))(**options)


class BaseModule(nn.Module):
    """As mmengine's: keeps the configuration of its initialisation."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()
        self.init_cfg = init_cfg


class BasicBlock(BaseModule):
    """As mmdet's block of a ResNet: conv1, bn1, conv2, bn2, relu, downsample; a subclass has the forward."""

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: nn.Module | None = None,
        style: str = "pytorch",
        with_cp: bool = False,
        conv_cfg: Any = None,
        norm_cfg: Any = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        norm = norm_cfg or {"type": "BN"}
        self.norm1_name, norm1 = build_norm_layer(norm, planes, 1)
        self.norm2_name, norm2 = build_norm_layer(norm, planes, 2)
        shape = {"stride": stride, "padding": dilation, "dilation": dilation, "bias": False}
        self.conv1 = build_conv_layer(conv_cfg, inplanes, planes, 3, **shape)
        self.add_module(self.norm1_name, norm1)
        self.conv2 = build_conv_layer(conv_cfg, planes, planes, 3, padding=1, bias=False)
        self.add_module(self.norm2_name, norm2)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride, self.dilation, self.with_cp = stride, dilation, with_cp

    @property
    def norm1(self) -> nn.Module:
        """The first BatchNorm."""
        return getattr(self, self.norm1_name)  # type: ignore[no-any-return]

    @property
    def norm2(self) -> nn.Module:
        """The second BatchNorm."""
        return getattr(self, self.norm2_name)  # type: ignore[no-any-return]


class Bottleneck(BaseModule):
    """As mmdet's; its sparse subclasses are not among the networks here."""

    expansion = 4


def scatter_add(values: torch.Tensor, index: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Sums of rows that share an index, as torch_scatter's."""
    made = values.new_zeros(int(index.max()) + 1, *values.shape[1:])
    return made.index_add(dim, index, values)


def scatter_mean(values: torch.Tensor, index: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Means of rows that share an index, as torch_scatter's."""
    count = scatter_add(torch.ones_like(values[:, :1]), index)
    return scatter_add(values, index, dim) / count


def scatter(values: torch.Tensor, index: torch.Tensor, dim: int = 0, reduce: str = "sum") -> torch.Tensor:
    """As torch_geometric's."""
    return (scatter_mean if reduce == "mean" else scatter_add)(values, index, dim)


def voxel_grid(pos: torch.Tensor, size: float, batch: torch.Tensor) -> torch.Tensor:
    """Number of each point's cell, as torch_geometric's, which no trace can follow either: it is compiled."""
    cells = torch.from_numpy(np.floor((pos.numpy() - pos.numpy().min(0)) / size)).long()
    cells = torch.cat([cells, batch.long()[:, None]], 1)
    steps = torch.cat([cells.new_ones(1), (cells.max(0).values + 1).cumprod(0)[:-1]])
    return (cells * steps).sum(1)


def trunc_normal_(tensor: torch.Tensor, **options: float) -> torch.Tensor:
    """torch's own."""
    return nn.init.trunc_normal_(tensor, **options)


SHIMS: dict[str, dict[str, Any]] = {
    "mmcv.cnn": {
        "CONV_LAYERS": CONV_LAYERS,
        "build_conv_layer": build_conv_layer,
        "build_norm_layer": build_norm_layer,
        "build_activation_layer": build_activation_layer,
    },
    "mmcv.runner": {"BaseModule": BaseModule},
    "mmengine.model": {"BaseModule": BaseModule},
    "mmdet.models.backbones.resnet": {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck},
    "timm.models.layers": {"trunc_normal_": trunc_normal_},
    "timm.layers": {"trunc_normal_": trunc_normal_},
    "addict": {"Dict": dict},
    "torch_scatter": {"scatter_mean": scatter_mean, "scatter_add": scatter_add},
    "torch_geometric.utils": {"scatter": scatter},
    "torch_geometric.nn.pool": {"voxel_grid": voxel_grid},
}
"""Names that a stand-in of a module has for real."""
