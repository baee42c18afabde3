# SPDX-License-Identifier: Apache-2.0
"""Turn reshapes and axis permutations of the dense map into operators with constant dims."""

from __future__ import annotations

import torch
from torch import fx

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.operators.dense import RESHAPE, TRANSPOSE
from scn_fx.operators.spec import OperatorSpec
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass
from scn_fx.passes.lower_operators import gives_dense_map

__all__ = ["LowerLayout"]

_RESHAPES = frozenset(
    {"_unsafe_view", "flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view", "_reshape_alias"}
)


class LowerLayout(GraphPass):
    """`view`, `flatten`, `squeeze`, … become `scn_fx.reshape`; `permute`, `transpose`, … `scn_fx.transpose`.

    Their shapes are constants once the batch size is, and an exporter then has no shape arithmetic to write.
    All values are contiguous afterwards, and a reshape of them follows the logical order of the axes as in
    torch.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in graph.graph.nodes:
            name = nodes.aten_name(node)
            if name is None or not node.args or not gives_dense_map(node.args[0]):
                continue
            if not isinstance(node.meta.get("val"), torch.Tensor):
                continue  # several results: chunk, split, max over an axis
            if name in _RESHAPES:
                shape = _static_shape(node)
                if shape is None:
                    self.refuse(node, "its shape depends on the number of voxels")
                    continue
                self._replace(node, RESHAPE, shape)
                modified = True
            else:
                order = _permutation(name, node)
                if order is not None:
                    self._replace(node, TRANSPOSE, order)
                    modified = True
        return modified

    @staticmethod
    def _replace(node: fx.Node, spec: OperatorSpec, dims: list[int]) -> None:
        node.target = getattr(torch.ops.scn_fx, spec.name).default
        node.args, node.kwargs = (node.args[0],), {"name": "", "dims": dims}


def _static_shape(node: fx.Node) -> list[int] | None:
    shape = list(node.meta["val"].shape)
    return shape if all(isinstance(size, int) for size in shape) else None


def _permutation(name: str, node: fx.Node) -> list[int] | None:
    """Order of the axes that a permuting operator asks for; None for any other operator."""
    rank = node.meta["val"].dim()
    if name == "permute":
        return [int(d) % rank for d in node.args[1]]  # type: ignore[union-attr, arg-type]
    if name in ("transpose", "swapaxes", "swapdims"):
        first, second = (int(d) % rank for d in node.args[1:3])  # type: ignore[arg-type]
        order = list(range(rank))
        order[first], order[second] = second, first
        return order
    if name in ("movedim", "moveaxis"):
        return _moved(rank, *(nodes.argument(node, side) for side in ("source", "destination")))
    return None


def _moved(rank: int, source: int | list[int], destination: int | list[int]) -> list[int]:
    sources = [d % rank for d in ([source] if isinstance(source, int) else source)]
    targets = [d % rank for d in ([destination] if isinstance(destination, int) else destination)]
    order = [axis for axis in range(rank) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return order
