# SPDX-License-Identifier: Apache-2.0
"""How many channels a value of a captured graph has."""

from __future__ import annotations

from torch import fx

from scn_fx.errors import ExportError
from scn_fx.graph import layers
from scn_fx.operators.spec import Sites

__all__ = ["channels_of"]


def channels_of(graph: fx.GraphModule, value: fx.Node) -> int:
    """Width of features, from the weights that make them or, for an input of the graph, read them.

    Raises:
        ExportError: no convolution makes or reads the value.
    """
    by_node = {layer.node: layer for layer in layers(graph)}

    def made(node: fx.Node) -> int | None:
        layer = by_node.get(node)
        if layer is None:
            return read(node)
        if layer.spec.weighted:
            return int(layer.weight.shape[0])
        widths = [made(each) for each in layer.inputs]
        known = [width for width in widths if width is not None]
        if layer.spec.joins:
            return sum(known) if len(known) == len(widths) else None
        return known[0] if known else None

    def read(node: fx.Node) -> int | None:
        for user in node.users:
            layer = by_node.get(user)
            if layer is not None and layer.spec.weighted:
                return int(layer.weight.shape[-1])
            width = read(user) if layer is not None and layer.spec.sites is Sites.SAME else None
            if width is not None and layer is not None and not layer.spec.joins:
                return width
        return None

    width = made(value)
    if width is None:
        raise ExportError(
            f"Expected a convolution that makes or reads {value}: without one nothing says how many channels "
            "it has. Capture a part of the model that has a convolution."
        )
    return width
