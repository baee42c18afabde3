# SPDX-License-Identifier: Apache-2.0
"""RENO, a LiDAR geometry codec, as a judge of int8: two trained sparse networks, and bits as their metric.

A published checkpoint (`<SCN_FX_DATA>/reno/*.ckpt.pt`, MIT licence) holds two trunks of five submanifold
convolutions with residual Adds. The prior trunk sees the occupancy codes of one octree level, the target
trunk what the former says of each cell's parent; two heads turn its result into probabilities of the cell's
code, four bits at a time. Bits of a sweep = sum of -log2 p over all cells of all levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

import scn_fx
from benchmarks.accuracy.octree import Octree
from scn_fx.quant.checkpoint_files import read_checkpoint

__all__ = ["TRUNKS", "Codec"]

TRUNKS = ("prior", "target")
_CHANNELS = 32
_CONVOLUTIONS = {"stem": "0", "block0.conv0": "2.conv0", "block0.conv1": "2.conv1"} | {
    "block1.conv0": "3.conv0",
    "block1.conv1": "3.conv1",
}
Network = Callable[[torch.Tensor, torch.Tensor], Any]


def _convolution() -> nn.Module:
    import spconv.pytorch as spconv

    made: nn.Module = spconv.SubMConv3d(_CHANNELS, _CHANNELS, 3, bias=False, indice_key="level")
    return made


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1, self.relu = _convolution(), _convolution(), nn.ReLU()

    def forward(self, x: Any) -> Any:
        """relu(x + conv1(relu(conv0(x))))"""
        y = self.conv0(x)
        y = self.conv1(y.replace_feature(self.relu(y.features)))
        return y.replace_feature(self.relu(y.features + x.features))


class _Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu, self.block0, self.block1 = _convolution(), nn.ReLU(), _Block(), _Block()

    def forward(self, features: torch.Tensor, indices: torch.Tensor, shape: list[int], batch: int) -> Any:
        """The trunk's features [N, 32], sparse."""
        import spconv.pytorch as spconv

        x = self.stem(spconv.SparseConvTensor(features, indices, shape, batch))
        return self.block1(self.block0(x.replace_feature(self.relu(x.features))))


class Codec:
    """One checkpoint: its trunks to be captured, its embeddings and heads in float32."""

    def __init__(self, checkpoint: str | Path, device: str = "cpu") -> None:
        weights: Mapping[str, torch.Tensor] = read_checkpoint(checkpoint)
        self._weights = {name: weight.to(device) for name, weight in weights.items()}
        self._device = device

    def graphs(self, shape: Sequence[int], batch_size: int) -> dict[str, fx.GraphModule]:
        """The captured trunks, by name, for octrees of at most this extent (z, y, x) and so many levels."""
        sites = torch.zeros(8, 4, dtype=torch.int32)
        sites[:, 3] = torch.arange(8)
        given = (torch.zeros(8, _CHANNELS), sites, list(shape), batch_size)
        return {name: scn_fx.capture(self._trunk(name), given).to(self._device) for name in TRUNKS}

    def _trunk(self, name: str) -> nn.Module:
        trunk = _Trunk().eval()
        for module, key in _CONVOLUTIONS.items():
            # [27, in, out], x fastest, to spconv's [out, kz, ky, kx, in]
            kernel = self._weights[f"{name}_resnet.{key}.kernel"]
            weight = kernel.reshape(3, 3, 3, _CHANNELS, _CHANNELS).permute(4, 0, 1, 2, 3)
            trunk.get_submodule(module).weight.data.copy_(weight)
        return trunk

    def prior_frame(self, tree: Octree) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and indices for the prior trunk."""
        return self._weights["prior_embedding.weight"][tree.codes], tree.indices

    def target_frame(self, tree: Octree, prior: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and indices for the target trunk, from the prior trunk's result [N, 32]."""
        child = self._weights["target_embedding.target_res_embedding.weight"][tree.children]
        return prior[tree.parents] + child, tree.indices[tree.coded]

    @torch.no_grad()
    def run(self, tree: Octree, prior: Network, target: Network) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Bits of a sweep, and the results of both trunks, with networks in the place of the trunks."""
        seen = _features(prior(*self.prior_frame(tree)))
        result = _features(target(*self.target_frame(tree, seen)))
        return self._bits(tree, result), seen, result

    def _bits(self, tree: Octree, y: torch.Tensor) -> float:
        code = tree.codes[tree.coded]
        low, high = code & 15, code >> 4
        total = self._surprise("pred_head_s0", y, low)
        return total + self._surprise("pred_head_s1", y + self._weights["pred_head_s1_emb.weight"][low], high)

    def _surprise(self, head: str, y: torch.Tensor, code: torch.Tensor) -> float:
        """Sum of -log2 of the probabilities that a head (Linear, ReLU, Linear) gives to the codes."""
        w = self._weights
        hidden = torch.relu(nn.functional.linear(y, w[f"{head}.0.weight"], w[f"{head}.0.bias"]))
        logits = nn.functional.linear(hidden, w[f"{head}.2.weight"], w[f"{head}.2.bias"])
        chosen = torch.log_softmax(logits.double(), 1).gather(1, code[:, None])
        return -float(chosen.sum()) / math.log(2)


def _features(result: Any) -> torch.Tensor:
    """Features of a sparse result, as float32."""
    value = result[0] if isinstance(result, tuple | list) else result
    tensor: torch.Tensor = value
    return tensor.float()
