# SPDX-License-Identifier: Apache-2.0
"""Values of a graph whose channels can be scaled without changing what the network computes.

A ReLU, as other homogeneous activations, passes positive factors on, and an Add passes on a factor that both
operands have. So the values that Adds and such activations tie together form a group with one factor per
channel: the convolutions that make them divide their output channels by it, and the convolutions that read
them multiply their input channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from scn_fx.graph import Layer, layers

__all__ = ["ScaleGroup", "scale_groups"]


def _ties(layer: Layer) -> bool:
    """Whether a layer ties its operands and its result together."""
    own = layer.spec.activation
    return layer.fused.homogeneous and (layer.spec.adds or (own is not None and own.homogeneous))


def _scales(layer: Layer) -> bool:
    """Whether the channels of a layer's result can be scaled at all."""
    return _ties(layer) or (layer.spec.weighted and layer.fused.homogeneous)


@dataclass(frozen=True)
class ScaleGroup:
    """Values with common channel factors, in topological order.

    Attributes:
        producers: convolutions whose result belongs to the group.
        consumers: convolutions that read one of its values.
        additions: Adds within it.
        channels: width of the values.
    """

    producers: tuple[Layer, ...]
    consumers: tuple[Layer, ...]
    additions: tuple[Layer, ...]
    channels: int


def scale_groups(graph: fx.GraphModule) -> list[ScaleGroup]:
    """The groups that nothing but convolutions, Adds and Relus make and read.

    A value that the graph takes or gives, or that a dense map is made of, fixes the factors of its group.
    """
    by_node = {layer.node: layer for layer in layers(graph)}
    leader: dict[fx.Node, fx.Node] = {}

    def find(node: fx.Node) -> fx.Node:
        while leader.setdefault(node, node) is not node:
            node = leader[node]
        return node

    fixed: list[fx.Node] = []
    for layer in by_node.values():
        if _ties(layer):
            for read in layer.inputs:
                leader[find(read)] = find(layer.node)
        elif layer.spec.weighted:
            find(layer.node)
    for node in list(leader):
        made = by_node.get(node)
        if made is None or not _scales(made) or _read_elsewhere(node, by_node):
            fixed.append(node)
    closed = {find(node) for node in fixed}
    members: dict[fx.Node, list[Layer]] = {}
    for node, layer in by_node.items():
        if node in leader and find(node) not in closed:
            members.setdefault(find(node), []).append(layer)
    return [_group(made, by_node) for made in members.values()]


def _read_elsewhere(node: fx.Node, by_node: dict[fx.Node, Layer]) -> bool:
    """Whether anything reads the value that cannot take factors; a value that nobody reads has no use."""
    readers = [by_node.get(user) for user in node.users]
    return not readers or any(
        layer is None or not (layer.spec.weighted or _ties(layer)) or node not in layer.inputs
        for layer in readers
    )


def _group(made: list[Layer], by_node: dict[fx.Node, Layer]) -> ScaleGroup:
    values = {layer.node for layer in made}
    producers = tuple(layer for layer in made if layer.spec.weighted)
    consumers = tuple(
        layer for layer in by_node.values() if layer.spec.weighted and layer.inputs[0] in values
    )
    additions = tuple(layer for layer in made if layer.spec.adds)
    return ScaleGroup(producers, consumers, additions, int(producers[0].weight.shape[0]))
