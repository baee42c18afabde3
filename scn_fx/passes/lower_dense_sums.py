# SPDX-License-Identifier: Apache-2.0
"""Turn sums over axes of a dense map into pooling of its sites."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from scn_fx.geometry import ConvGeometry, Triple
from scn_fx.graph import operator_spec
from scn_fx.names import unique
from scn_fx.operators.dense import SCATTER_DENSE
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass
from scn_fx.passes.new_maps import add_call, add_conv_map, extents_of

__all__ = ["LowerDenseSums"]


class LowerDenseSums(GraphPass):
    """``dense.sum(2)`` becomes pooling of what lies above one cell, and the dense map of the result.

    Cells without a site are zero, so a sum over whole axes is that of the sites along them: pooling over the
    map of a kernel as long as those axes. Nothing of the size of the taller map is made. The sums of a graph
    are made in the order of the sites along the axes.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in list(graph.graph.nodes):
            dense = node.args[0] if nodes.aten_name(node) == "sum" and node.args else None
            if isinstance(dense, fx.Node) and operator_spec(dense) is SCATTER_DENSE:
                modified |= self._replace(graph, node, dense)
        return modified

    def _replace(self, graph: fx.GraphModule, node: fx.Node, dense: fx.Node) -> bool:
        dims = nodes.argument(node, "dim") if len(node.args) > 1 or "dim" in node.kwargs else None
        axes = sorted(int(dim) % 5 - 2 for dim in dims) if isinstance(dims, Sequence) and dims else []
        if not axes or axes[0] < 0 or nodes.argument(dense, "format") != "zyx":
            self.refuse(node, "only sums over spatial axes (dim=2, 3 or 4) of a dense map of z, y, x are")
            return False
        features, indices = dense.args
        assert isinstance(features, fx.Node) and isinstance(indices, fx.Node)
        extents = extents_of(indices)
        if extents is None or len(extents) != 4:
            self.refuse(node, "no layer tells the grid of its sites")
            return False
        grid = (extents[1], extents[2], extents[3])
        shape = [1 if axis in axes else size for axis, size in enumerate(dense.kwargs["spatial_shape"])]  # type: ignore[arg-type]
        found = {
            str(n.kwargs["name"]) for n in graph.graph.nodes if operator_spec(n) and n.kwargs.get("name")
        }
        path = nodes.module_path(node)
        name = unique(f"{path}.sum" if path else "sum", found)
        with graph.graph.inserting_before(node):
            sites, kernel_map = add_conv_map(graph, node, indices, _collected(grid, axes), name)
            pooled = add_call(graph, node, "pool", (features, kernel_map), name=name, kind="sum")
            keywords = {**dense.kwargs, "spatial_shape": shape}
            low = add_call(graph, node, "scatter_dense", (pooled, sites), **keywords)
            flat = add_call(graph, node, "reshape", (low,), name="", dims=list(node.meta["val"].shape))
        flat.meta = dict(node.meta)
        node.replace_all_uses_with(flat)
        return True


def _collected(grid: Triple, axes: Sequence[int]) -> ConvGeometry:
    """Everything along `axes` goes to one cell."""
    z, y, x = (size if axis in axes else 1 for axis, size in enumerate(grid))
    kernel = (z, y, x)
    out = ConvGeometry.strided(grid, kernel, kernel, (0, 0, 0), (1, 1, 1)).output_spatial_shape
    return ConvGeometry(kernel, kernel, (0, 0, 0), (1, 1, 1), (0, 0, 0), grid, out)
