# SPDX-License-Identifier: Apache-2.0
"""Random spconv models of 2 to 12 layers of every kind that spconv's CPU build computes, without bias."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import spconv.pytorch as spconv
import torch
from torch import nn

__all__ = ["RandomModel"]

_WIDTHS = (1, 3, 4, 8, 16)
_KINDS = (
    "subm", "subm", "residual", "down", "down", "up", "up", "wide", "transposed", "linear", "norm",
    "activation", "gate", "beside", "rows", "pool", "merged",
)  # fmt: skip
_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.ReLU6, nn.Hardswish, lambda: nn.LeakyReLU(0.1),
    lambda: nn.Dropout(0.3), nn.Identity,
)  # fmt: skip


class Step(nn.Module, ABC):
    """One layer or block."""

    @abstractmethod
    def forward(self, x: Any, levels: list[tuple[Any, str]]) -> Any:
        """`levels` holds the tensors that strided convolutions have left, with their keys."""


class Layer(Step):
    """A module of sparse tensors, or one of features."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any, levels: list[tuple[Any, str]]) -> Any:
        if isinstance(self.module, spconv.SparseModule):
            return self.module(x)
        return x.replace_feature(self.module(x.features))


class Residual(Step):
    """Two convolutions beside an identity."""

    def __init__(self, width: int, key: str | None) -> None:
        super().__init__()
        self.first, self.second = (
            spconv.SubMConv3d(width, width, 3, bias=False, indice_key=key) for _ in "ab"
        )
        self.norms = nn.ModuleList([nn.BatchNorm1d(width), nn.BatchNorm1d(width)])

    def forward(self, x: Any, levels: list[tuple[Any, str]]) -> Any:
        y = self.first(x)
        y = self.second(y.replace_feature(torch.relu(self.norms[0](y.features))))
        return y.replace_feature(torch.relu(self.norms[1](y.features + x.features)))


class Gate(Step):
    """Features times a gate that a convolution makes of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = spconv.SubMConv3d(width, width, 1, bias=False)

    def forward(self, x: Any, levels: list[tuple[Any, str]]) -> Any:
        return x.replace_feature(x.features * torch.sigmoid(self.gate(x).features))


class Beside(Step):
    """Features beside those of a convolution."""

    def __init__(self, width: int, other: int) -> None:
        super().__init__()
        self.conv = spconv.SubMConv3d(width, other, 3, bias=False)

    def forward(self, x: Any, levels: list[tuple[Any, str]]) -> Any:
        return x.replace_feature(torch.cat([self.conv(x).features, x.features], 1))


class Down(Step):
    """A strided convolution; what it reads is kept for the way up."""

    def __init__(self, width: int, out: int, kernel: int, padding: int, key: str) -> None:
        super().__init__()
        self.conv = spconv.SparseConv3d(width, out, kernel, 2, padding, bias=False, indice_key=key)
        self.key = key

    def forward(self, x: Any, levels: list[tuple[Any, str]]) -> Any:
        levels.append((x, self.key))
        return self.conv(x)


class Up(Step):
    """Back to the sites of the last level, whose features are joined, added or left out."""

    def __init__(self, width: int, out: int, kernel: int, key: str, how: str) -> None:
        super().__init__()
        self.conv = spconv.SparseInverseConv3d(width, out, kernel, indice_key=key, bias=False)
        self.how = how

    def forward(self, x: Any, levels: list[tuple[Any, str]]) -> Any:
        before, _ = levels.pop()
        y = self.conv(x)
        if self.how == "join":
            return y.replace_feature(torch.cat([y.features, before.features], 1))
        return y.replace_feature(y.features + before.features) if self.how == "add" else y


class Merged(Step):
    """A coarser level summed into the grid of its input, cell by cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = spconv.SparseConv3d(width, width, 3, 2, 1, bias=False)

    def forward(self, x: Any, levels: list[tuple[Any, str]]) -> Any:
        y = self.conv(x)
        y.indices[:, 1:] *= 2
        cells, rows = torch.unique(torch.cat([x.indices, y.indices]), dim=0, return_inverse=True)
        features = x.features.new_zeros((cells.shape[0], x.features.shape[1]))
        features.index_add_(0, rows, torch.cat([x.features, y.features]))
        return spconv.SparseConvTensor(features, cells, x.spatial_shape, x.batch_size)


class RandomModel(nn.Module):
    """A model that a seed chooses, in evaluation mode; `words` says what it is.

    It reads sparse tensors of `in_channels` on `grid`, and gives a sparse tensor or a dense map.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = np.random.default_rng(seed)
        self.grid = tuple(int(n) for n in self._rng.integers(5, 14, 3))
        self.in_channels, self.width = self._pick((3, 4, 5)), self._pick(_WIDTHS)
        self.words: list[str] = []
        self._open: list[tuple[int, str, int]] = []  # width, key and kernel of the levels on the way down
        self._keys = 0
        first = spconv.SubMConv3d(self.in_channels, self.width, 3, bias=False)
        steps: list[Step] = [Layer(first)]
        for _ in range(self._rng.integers(1, 12)):
            kind = self._pick(_KINDS)
            steps.append(getattr(self, f"_{kind}")())
            self.words.append(kind)
        self.steps = nn.ModuleList(steps)
        self.ending = self._pick(("sparse", "dense", "sum"))
        self.words.append(self.ending)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for norm in self.modules():
                if isinstance(norm, nn.BatchNorm1d):
                    norm.running_mean.normal_(generator=generator)
                    norm.running_var.uniform_(0.5, 2.0, generator=generator)
                    norm.weight.uniform_(-1.5, 1.5, generator=generator)
                    norm.bias.normal_(generator=generator)
        self.eval()

    def forward(self, x: Any) -> Any:
        """A SparseConvTensor to another, or to a dense map."""
        levels: list[tuple[Any, str]] = []
        for step in self.steps:
            x = step(x, levels)
        if self.ending == "sparse":
            return x
        return x.dense() if self.ending == "dense" else x.dense().sum(2)

    def _pick(self, choices: Any) -> Any:
        return choices[int(self._rng.integers(len(choices)))]

    def _key(self) -> str:
        self._keys += 1
        return f"key{self._keys}"

    def _widen(self) -> tuple[int, int]:
        before, self.width = self.width, self._pick(_WIDTHS)
        return before, self.width

    def _subm(self) -> Step:
        kernel = self._pick((1, 3, (3, 1, 1), (1, 3, 3), 5))
        dilation = self._pick((1, 1, 2)) if kernel == 3 else 1
        return Layer(spconv.SubMConv3d(*self._widen(), kernel, dilation=dilation, bias=False))

    def _residual(self) -> Step:
        return Residual(self.width, self._pick((None, self._key())))

    def _down(self) -> Step:
        kernel, key, (before, after) = self._pick((2, 3)), self._key(), self._widen()
        self._open.append((before, key, kernel))
        return Down(before, after, kernel, kernel // 2, key)

    def _up(self) -> Step:
        if not self._open:
            return self._down()
        (skip, key, kernel), how, before = self._open.pop(), self._pick(("join", "add", "none")), self.width
        out = skip if how == "add" else self._pick(_WIDTHS)
        self.width = out + skip if how == "join" else out
        return Up(before, out, kernel, key, how)

    def _wide(self) -> Step:
        self._open.clear()
        return Layer(spconv.SparseConv3d(*self._widen(), 3, 1, 1, bias=False))

    def _transposed(self) -> Step:
        if "transposed" in self.words:  # each has eight times the sites
            return self._subm()
        self._open.clear()
        return Layer(spconv.SparseConvTranspose3d(*self._widen(), 2, 2, bias=False))

    def _linear(self) -> Step:
        return Layer(nn.Linear(*self._widen(), bias=self._pick((True, False))))

    def _norm(self) -> Step:
        return Layer(nn.BatchNorm1d(self.width))

    def _activation(self) -> Step:
        return Layer(self._pick(_ACTIVATIONS)())

    def _gate(self) -> Step:
        return Gate(self.width)

    def _beside(self) -> Step:
        other, before = self._pick(_WIDTHS), self.width
        self.width += other
        return Beside(before, other)

    def _rows(self) -> Step:
        if self.width == 1:  # one channel less its own mean is rounding alone
            return self._norm()
        groups = self._pick([n for n in range(1, self.width // 2 + 1) if self.width % n == 0])
        return Layer(self._pick((nn.LayerNorm(self.width), nn.GroupNorm(groups, self.width))))

    def _pool(self) -> Step:
        self._open.clear()
        kernel = self._pick((2, 3))
        pool = spconv.SparseMaxPool3d(kernel, 2, kernel // 2)
        return Layer(spconv.SparseSequential(nn.ReLU(), pool))  # the CPU build's maximum begins at zero

    def _merged(self) -> Step:
        self._open.clear()
        return Merged(self.width)
