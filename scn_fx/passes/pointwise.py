# SPDX-License-Identifier: Apache-2.0
"""Makes layers in a graph that passes rewrite: convolutions of one offset with their maps, and others."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from scn_fx.errors import CaptureError
from scn_fx.graph_maps import kernel_map_of
from scn_fx.graph_nodes import argument, map_source, operator_spec
from scn_fx.names import unique
from scn_fx.operators.activations import NO_ACTIVATION
from scn_fx.operators.add import ADD
from scn_fx.operators.affine import AFFINE
from scn_fx.operators.convolution import CONVOLUTION
from scn_fx.operators.maps import SUBM_MAP
from scn_fx.operators.spec import Kind
from scn_fx.passes import nodes

__all__ = ["LayerMaker"]


class LayerMaker:
    """Inserts layers before a node of the graph, named after the module that they stand for."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self._graph = graph
        self._maps: dict[fx.Node, fx.Node] = {}
        # Layers have names, and maps rulebooks; neither may be taken twice.
        self._names = {str(n.kwargs["name"]) for n in graph.graph.nodes if n.kwargs.get("name")}
        self._names |= {str(n.kwargs["rulebook"]) for n in graph.graph.nodes if n.kwargs.get("rulebook")}

    def name(self, stem: str) -> str:
        """A name that no layer has."""
        made = unique(stem, self._names)
        self._names.add(made)
        return made

    def convolution(
        self,
        before: fx.Node,
        x: fx.Node,
        kernel_map: fx.Node,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        name: str,
        like: fx.Node,
    ) -> fx.Node:
        """A convolution without activation; weight [out, kz, ky, kx, in] and bias are rounded to float32.

        Its module is that of `like`.
        """
        stored = nodes.new_attribute(self._graph, before, "made_weight", weight.float())
        offset = None if bias is None else nodes.new_attribute(self._graph, before, "made_bias", bias.float())
        return self._call(
            before, CONVOLUTION.name, (x, stored, offset, kernel_map), weight.shape[0], like, x, name=name,
            activation=NO_ACTIVATION,
        )  # fmt: skip

    def pointwise(
        self, before: fx.Node, x: fx.Node, matrix: torch.Tensor, shift: torch.Tensor, stem: str, like: fx.Node
    ) -> fx.Node:
        """`matrix` [out, in] times each row of x, plus `shift` [out]: a convolution of one offset."""
        name = self.name(stem)
        weight = matrix.reshape(matrix.shape[0], 1, 1, 1, matrix.shape[1])
        bias = shift if bool(shift.any()) else None
        return self.convolution(before, x, self._map(before, x, name), weight, bias, name, like)

    def affine(
        self, before: fx.Node, x: fx.Node, scale: torch.Tensor, shift: torch.Tensor, stem: str, like: fx.Node
    ) -> fx.Node:
        """Each channel of x times its `scale`, plus its `shift`; both are rounded to float32."""
        numbers = {name: values.float().tolist() for name, values in (("scale", scale), ("shift", shift))}
        return self._call(
            before, AFFINE.name, (x,), int(scale.shape[0]), like, x, name=self.name(stem), **numbers
        )

    def add(self, before: fx.Node, a: fx.Node, b: fx.Node, like: fx.Node, **keywords: Any) -> fx.Node:
        """The sum of two values on the same sites; NameNodes names it after the module of `like`."""
        channels = int(a.meta["val"].shape[1])
        return self._call(before, ADD.name, (a, b), channels, like, a, name="", **keywords)

    def activation(self, before: fx.Node, x: fx.Node, like: fx.Node) -> fx.Node:
        """The activation `like`, of another value."""
        channels = int(x.meta["val"].shape[1])
        kind = operator_spec(like)
        assert kind is not None and kind.activation is not None
        return self._call(before, kind.name, (x,), channels, like, x, **like.kwargs)

    def _call(
        self,
        before: fx.Node,
        kind: str,
        operands: tuple[Any, ...],
        channels: int,
        like: fx.Node,
        rows: fx.Node,
        **keywords: Any,
    ) -> fx.Node:
        with self._graph.graph.inserting_before(before):
            target = getattr(torch.ops.scn_fx, kind).default
            made = self._graph.graph.call_function(target, operands, keywords)
        nodes.copy_place(like, made)
        made.meta.pop("reasons", None)
        known = rows.meta["val"]
        made.meta["val"] = known.new_empty((known.shape[0], channels), dtype=torch.float32)
        return made

    def _map(self, before: fx.Node, x: fx.Node, name: str) -> fx.Node:
        """The map by which every site of x reads itself; one for all layers on these sites."""
        sites = nodes.sites(x)
        assert sites is not None
        if sites not in self._maps:
            self._maps[sites] = self._made_map(before, x, sites, name)
        return self._maps[sites]

    def _made_map(self, before: fx.Node, x: fx.Node, sites: fx.Node, name: str) -> fx.Node:
        shape, batch_size, bound, indices = self._grid(x, sites)
        with self._graph.graph.inserting_before(before):
            if indices is None:
                spec = operator_spec(sites)
                assert spec is not None
                indices = self._graph.graph.call_function(
                    operator.getitem, (sites, spec.gives.index(Kind.SITES))
                )
            made = self._graph.graph.call_function(
                getattr(torch.ops.scn_fx, SUBM_MAP.name).default,
                (indices,),
                {
                    "name": name,
                    "batch_size": batch_size,
                    "spatial_shape": list(shape),
                    "kernel_size": [1, 1, 1],
                    "dilation": [1, 1, 1],
                    "rulebook": name,
                    "output_bound": bound,
                },
            )
        return made

    def _grid(self, x: fx.Node, sites: fx.Node) -> tuple[tuple[int, ...], int, int, fx.Node | None]:
        """Grid, batch size and bound of sites, from any map of theirs; their indices if they are an input."""
        foreign = _is_features(sites)  # which stand for sites that nobody has named yet
        for node in self._graph.graph.nodes:
            if map_source(node) is None:
                continue
            source = map_source(node)
            assert source is not None
            all_read, written = nodes.input_sites(node), nodes.output_sites(node)
            read = sites if sites in all_read else all_read[0]
            geometry, of_read = kernel_map_of(self._graph, node).geometry, read is sites
            if foreign and read is not None and read.op == "placeholder":
                of_read = True
            if not of_read and written is not sites:
                continue
            maker = source
            while "batch_size" not in maker.kwargs:  # an inverse map has that of its partner
                partner = map_source(maker.args[0])
                assert partner is not None
                maker = partner
            shape = geometry.input_spatial_shape if of_read else geometry.output_spatial_shape
            place = read if of_read else written
            indices = place if place is not None and place.op == "placeholder" else None
            return shape, int(argument(maker, "batch_size")), int(argument(source, "output_bound")), indices
        raise CaptureError(
            f"{nodes.where(x)} is computed before any convolution, so its grid is not known, and no layer "
            "behind it tells. Capture a part of the model with a convolution."
        )


def _is_features(node: fx.Node) -> bool:
    return node.op == "placeholder" and node.meta["val"].is_floating_point()
