# SPDX-License-Identifier: Apache-2.0
"""Weights and biases of a captured graph that quantisation changes, and what the graph was before.

Rounding, bias correction, equalisation and fine-tuning all change the float16 numbers of layers. A cache must
still tell the graph that it was made from, so the fingerprint of the unchanged graph, and a digest of each
layer's numbers, are kept in the graph's metadata from the first change on.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from scn_fx.errors import CalibrationError, OverflowedError
from scn_fx.graph import Layer, fingerprint, layers, metadata, set_metadata

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

__all__ = ["changed_layers", "note_change", "original_fingerprint", "set_bias", "set_weight"]

_FINGERPRINT = "original_fingerprint"
_DIGESTS = "original_parameters"


def note_change(graph: GraphModule) -> None:
    """Say that weights or biases are about to change; call it before the first change.

    The metadata get `original_fingerprint` and `original_parameters`. Calls after the first change nothing,
    so whoever changes weights may always call it.
    """
    if _FINGERPRINT not in metadata(graph):
        digests = {layer.name: _digests(layer) for layer in _convolutions(graph)}
        set_metadata(graph, **{_FINGERPRINT: fingerprint(graph), _DIGESTS: digests})


def original_fingerprint(graph: GraphModule) -> str:
    """The fingerprint (see `scn_fx.graph.fingerprint`) of the graph before weights or biases were changed."""
    known = metadata(graph).get(_FINGERPRINT)
    return fingerprint(graph) if known is None else str(known)


def changed_layers(graph: GraphModule) -> list[Layer]:
    """The convolutions whose float16 weight or bias differs from the original graph's, in order."""
    digests = metadata(graph).get(_DIGESTS)
    if digests is None:
        return []
    return [layer for layer in _convolutions(graph) if digests.get(layer.name) != _digests(layer)]


def set_weight(layer: Layer, weight: torch.Tensor) -> None:
    """Replace the weight of a convolution by `weight`, rounded to float16 (what every engine stores).

    Args:
        layer: a convolution of a captured graph.
        weight: [out, kz, ky, kx, in], the shape of the present one; any float dtype and device.

    Raises CalibrationError for another shape or values that are not finite, OverflowedError for a value
    beyond float16.
    """
    _require_convolution(layer)
    _replace(layer, "weight", weight, tuple(layer.weight.shape))


def set_bias(layer: Layer, bias: torch.Tensor) -> None:
    """Replace the bias of a convolution by `bias`, rounded to float16; a layer without one gets it.

    Args:
        layer: a convolution of a captured graph.
        bias: [out]; any float dtype and device.

    Raises as `set_weight`.
    """
    _require_convolution(layer)
    _replace(layer, "bias", bias, (layer.weight.shape[0],))


def _require_convolution(layer: Layer) -> None:
    if not layer.spec.weighted:
        raise CalibrationError(
            f"{layer.name} is of kind {layer.kind!r}; only a convolution has weight and bias."
        )


def _convolutions(graph: GraphModule) -> list[Layer]:
    return [layer for layer in layers(graph) if layer.spec.weighted]


def _digests(layer: Layer) -> dict[str, str | None]:
    return {"weight": _digest(layer.weight), "bias": _digest(layer.bias)}


def _digest(value: torch.Tensor | None) -> str | None:
    if value is None:
        return None
    return hashlib.sha256(value.detach().half().cpu().contiguous().numpy().tobytes()).hexdigest()


def _replace(layer: Layer, what: str, value: torch.Tensor, shape: tuple[int, ...]) -> None:
    import torch

    if tuple(value.shape) != shape or not value.is_floating_point():
        raise CalibrationError(
            f"{layer.name}: the {what} must be a float tensor {list(shape)}, got {value.dtype} "
            f"{list(value.shape)}."
        )
    present = layer.weight
    rounded = value.detach().to(present.device).half().float().contiguous()
    if not bool(rounded.isfinite().all()):
        if not bool(value.isfinite().all()):
            raise CalibrationError(f"{layer.name}: the new {what} holds NaN or infinite values.")
        raise OverflowedError(
            f"{layer.name}: the new {what} holds a value of magnitude {float(value.abs().max()):.6g}, which "
            "does not fit in float16 (at most 65504)."
        )
    graph = layer.graph
    note_change(graph)
    node = layer.argument(what)
    trains = node is not None and _tensor(graph, node).requires_grad
    parameter = torch.nn.Parameter(rounded, requires_grad=trains)
    if node is not None and _sole_owner(graph, node):
        owner, _, leaf = str(node.target).rpartition(".")
        module = graph.get_submodule(owner)
        delattr(module, leaf)
        module.register_parameter(leaf, parameter)
        return
    name = _free_name(graph, f"{layer.node.name}_{what}")
    graph.register_parameter(name, parameter)
    with graph.graph.inserting_before(layer.node):
        made = graph.graph.get_attr(name)
    _set_argument(layer.node, what, made)
    if node is not None and not node.users:  # another node reads the same tensor
        graph.graph.erase_node(node)
    graph.recompile()


def _tensor(graph: GraphModule, node: Node) -> torch.Tensor:
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert not isinstance(value, str)
    return value


def _sole_owner(graph: GraphModule, node: Node) -> bool:
    """Whether no other layer reads the stored tensor."""
    same = [other for other in graph.graph.nodes if other.op == "get_attr" and other.target == node.target]
    return same == [node] and len(node.users) == 1


def _free_name(graph: GraphModule, stem: str) -> str:
    name, count = stem, 0
    while hasattr(graph, name):
        count += 1
        name = f"{stem}_{count}"
    return name


def _set_argument(node: Node, what: str, value: Node) -> None:
    """Put `value` where the operator's schema has `what`: it may stand among the positional arguments."""
    if what in node.kwargs:
        node.update_kwarg(what, value)
        return
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    node.update_arg(names.index(what), value)
