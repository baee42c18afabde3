# SPDX-License-Identifier: Apache-2.0
"""Which arithmetic each convolution and Add uses, and in which form it hands its result on."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import prod
from typing import TYPE_CHECKING

from scn_fx.errors import CalibrationError
from scn_fx.graph import Layer, layers, metadata, set_all
from scn_fx.quant.ranges import quantizable, read_ranges

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

__all__ = ["PRECISIONS", "PrecisionSpec", "default_precisions", "set_precision"]

PRECISIONS = ("fp32", "fp16", "int8")
PrecisionSpec = Mapping[str, str] | str | None

# One product of two int8 values is at most 2^14 in magnitude; beyond this many of them per output value
# (kernel volume x input channels) their sum may leave int32.
_MAX_INT8_TERMS = 2**31 // 2**14


def int8_terms(layer: Layer) -> int:
    """Products per output value of a convolution: kernel volume times input channels."""
    return prod(layer.weight.shape[1:])


def fits_int8(layer: Layer) -> bool:
    return not layer.spec.weighted or int8_terms(layer) < _MAX_INT8_TERMS


def _reads_graph_features(graph: GraphModule, layer: Layer) -> bool:
    """Whether a convolution's features are, or hold, the graph's own, perhaps through an activation."""
    features = metadata(graph)["features"]
    passing = {other.node: other for other in layers(graph) if other.spec.passes_on}

    def reads(node: Node) -> bool:
        if node in passing:
            return any(reads(each) for each in passing[node].inputs)
        return node.op == "placeholder" and node.name == features

    return reads(layer.inputs[0])


def default_precisions(graph: GraphModule) -> dict[str, str]:
    """The precision of each layer when nobody says otherwise, by layer name.

    Convolutions that read the graph's own features stay float16, since raw coordinates and intensities (up to
    255) do not fit one int8 range well; every other convolution and every Add is int8. A convolution with so
    many terms that int32 sums could overflow stays float16 too.
    """
    return {
        layer.name: "fp16"
        if layer.spec.weighted and (_reads_graph_features(graph, layer) or not fits_int8(layer))
        else "int8"
        for layer in quantizable(graph)
    }


def override(base: Mapping[str, str], patterns: Mapping[str, str]) -> dict[str, str]:
    """`base` with precisions replaced by shell-style name patterns, in order: the last match wins.

    Raises CalibrationError for an unknown precision, a pattern that matches no layer, and a pattern all of
    whose matches later patterns replace (a general pattern written after a special one).
    """
    chosen = dict(base)
    decided_by: dict[str, str] = {}
    for pattern, precision in patterns.items():
        if precision not in PRECISIONS:
            raise CalibrationError(
                f"Unknown precision {precision!r} for {pattern!r}; expected one of {', '.join(PRECISIONS)}."
            )
        matches = [name for name in base if fnmatchcase(name, pattern)]
        if not matches:
            raise CalibrationError(
                f"The precision pattern {pattern!r} matches none of the {len(base)} layers: "
                f"{', '.join(base)}."
            )
        for name in matches:
            chosen[name] = precision
            decided_by[name] = pattern
    idle = [pattern for pattern in patterns if pattern not in decided_by.values()]
    if idle:
        raise CalibrationError(
            f"The precision pattern {idle[0]!r} has no effect, because later patterns match all of its "
            "layers and the last match wins. Write general patterns first, e.g. {'*': 'int8', 'conv1.*': "
            "'fp16'}."
        )
    return chosen


def resolve(graph: GraphModule, spec: PrecisionSpec, base: Mapping[str, str]) -> dict[str, str]:
    """The precision of each layer that `spec` asks for, checked against the graph (see `set_precision`)."""
    if spec is None or spec == "default":
        chosen = default_precisions(graph)
        patterns: Mapping[str, str] = {}
    else:
        patterns = {"*": spec} if isinstance(spec, str) else spec
        chosen = override(base, patterns)
    floats = [name for name, precision in chosen.items() if precision == "fp32"]
    if floats and len(floats) < len(chosen):
        others = [name for name in chosen if name not in floats]
        raise CalibrationError(
            "fp32 is the reference arithmetic of a whole graph and cannot be mixed: "
            f"{len(floats)} layers would be fp32 ({floats[0]}, ...) beside {len(others)} others "
            f"({others[0]}, ...). Choose fp16 or int8 for single layers, or start again from 'default'."
        )
    for layer in quantizable(graph):
        if chosen[layer.name] == "int8" and not fits_int8(layer):
            raise CalibrationError(
                f"{layer.name}: {int8_terms(layer)} products per output value (kernel volume x input "
                f"channels) can overflow int32; int8 takes fewer than {_MAX_INT8_TERMS}. Use fp16 for this "
                "layer."
            )
    return chosen


def _every_consumer_is_int8(node: Node, chosen: Mapping[str, str], by_node: Mapping[Node, Layer]) -> bool:
    if not node.users:
        return False
    for user in node.users:
        layer = by_node.get(user)
        if layer is None:
            return False
        if layer.spec.passes_on:
            if not _every_consumer_is_int8(user, chosen, by_node):
                return False
        elif chosen.get(layer.name) != "int8":
            return False
    return True


def output_precisions(graph: GraphModule, chosen: Mapping[str, str]) -> dict[str, str]:
    """The form in which each layer hands on its result, by layer name.

    It is "int8" if every consumer is an int8 layer, looking through what only hands it on: those quantise the
    unrounded value with their own range. "fp16" (rounded) otherwise, so the last output is float16. "fp32" in
    an fp32 graph.
    """
    by_node = {layer.node: layer for layer in layers(graph)}
    result = {}
    for layer in quantizable(graph):
        if chosen[layer.name] == "fp32":
            result[layer.name] = "fp32"
        else:
            int8 = _every_consumer_is_int8(layer.node, chosen, by_node)
            result[layer.name] = "int8" if int8 else "fp16"
    return result


def write_precisions(graph: GraphModule, chosen: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Put precisions and output precisions into the graph's nodes."""
    set_all(
        graph,
        {
            layer: {"precision": chosen[layer.name], "output_precision": outputs[layer.name]}
            for layer in quantizable(graph)
        },
    )


def set_precision(graph: GraphModule, precision: PrecisionSpec) -> dict[str, str]:
    """Change the precision of layers; output precisions follow. Returns the precision of every layer by name.

    Args:
        graph: a captured graph; int8 layers need ranges (`quant.calibrate` or `quant.load_cache` first).
        precision: shell-style patterns of layer names with "fp16" or "int8", on top of what the graph has
            now, the last match wins: ``{"*": "int8", "conv1.*": "fp16"}``. Or one word for all layers: "fp32"
            (the float reference), "fp16", "int8", or "default" (see `default_precisions`).

    Raises CalibrationError, leaving the graph as it was.
    """
    found = quantizable(graph)
    now = {layer.name: layer.precision for layer in found}
    chosen = resolve(graph, precision, now)
    for layer in found:
        if chosen[layer.name] == "int8" and read_ranges(layer) is None:
            raise CalibrationError(
                f"{layer.name} has no ranges, which int8 needs. Calibrate the graph first "
                "(quant.calibrate, quant.load_cache), or choose fp16 for this layer."
            )
    write_precisions(graph, chosen, output_precisions(graph, chosen))
    return chosen
