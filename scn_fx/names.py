# SPDX-License-Identifier: Apache-2.0
"""Unique names, and the one rule that names the node of an activation behind an Add."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx

    from scn_fx.graph import Layer

__all__ = ["activation_nodes", "unique"]


def unique(stem: str, taken: set[str]) -> str:
    """`stem`, or `stem_1`, `stem_2`, … where that is taken."""
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name


def activation_nodes(found: Iterable[Layer], dialect: str) -> dict[fx.Node, str]:
    """The layers whose activation is a node of its own in files, and the names of these nodes.

    Files hold the activation of a convolution as an attribute, if the dialect knows it there, and none of an
    Add. An activation module may serve several Adds.
    """
    every = list(found)
    taken = {layer.name for layer in every}
    names: dict[fx.Node, str] = {}
    for layer in every:
        form, fused = layer.spec.onnx, layer.fused
        if not fused.operator or form is None:
            continue
        if "activation" in form.types and dialect in fused.attribute_in:
            continue
        own = layer.activation_name if layer.spec.adds else ""
        name = unique(own or f"{layer.name}.{fused.operator}", taken)
        taken.add(name)
        names[layer.node] = name
    return names
