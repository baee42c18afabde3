# SPDX-License-Identifier: Apache-2.0
"""Improvements work on a copy of the graph, so that an error or Ctrl-C leaves the graph as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.fx import GraphModule

from scn_fx.graph import layers
from scn_fx.quant.changes import set_bias, set_weight

__all__ = ["working_copy"]


@contextmanager
def working_copy(graph: GraphModule) -> Iterator[GraphModule]:
    """Yields a copy of `graph`; weights and biases that differ in it at the end go back into `graph`."""
    copied = copy.deepcopy(graph)
    yield copied
    mine = {layer.name: layer for layer in layers(graph)}
    for layer in layers(copied):
        if not layer.spec.weighted:
            continue
        own = mine[layer.name]
        if not torch.equal(layer.weight, own.weight):
            set_weight(own, layer.weight)
        if layer.bias is not None and (own.bias is None or not torch.equal(layer.bias, own.bias)):
            set_bias(own, layer.bias)
