# SPDX-License-Identifier: Apache-2.0
"""Check that a graph is what later stages rely on."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import fx

from scn_fx.errors import CaptureError
from scn_fx.graph import operands, operator_spec
from scn_fx.operators.activations import real_activations
from scn_fx.operators.spec import Kind, Sites
from scn_fx.operators.table import OPERATORS
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass
from scn_fx.passes.entry_inputs import ancestors
from scn_fx.passes.module_marks import at_line, module_before
from scn_fx.passes.outputs import check_outputs
from scn_fx.passes.refused import refusal
from scn_fx.passes.row_choices import ADVICE, chooses, row_choice

__all__ = ["Verify"]

_ROWS = "It is supported on features [N, C] that have a row per site."
_ADVICE = {
    **dict.fromkeys(("batch_norm", "linear", "addmm", "mm", "matmul"), _ROWS),
    "cat": "Features of the same sites can be joined along their channels (dim=1), rows of sites cannot.",
    **{name: spec.advice for spec in OPERATORS.values() for name in spec.aten if spec.advice},
    "to": "A graph is float32; its precisions are chosen by quant.calibrate. Leave casts out of the forward.",
}
_OTHER_ACTIVATIONS = frozenset({"celu", "clamp_max", "elu", "mish", "prelu", "selu", "softplus", "softsign"})
_ACTIVATIONS = _OTHER_ACTIVATIONS.union(*(each.aten for each in real_activations()))


def _activation_advice() -> str:
    names = [each.name for each in real_activations()]
    return (
        f"The activations of sparse layers are {', '.join(names[:-1])} and {names[-1]} (clamp(min=0) is a "
        "ReLU, clamp(0, 6) a ReLU6); train with one of them."
    )


class Verify(GraphPass):
    """Only operators of the dialect, features that belong to their sites, unique names, proper outputs.

    Changes nothing. Which sites a value has follows from the graph, so a feature tensor combined with another
    level's sites is found here, before a frame is run.
    """

    def __init__(self, outputs: str = "", chosen: Sequence[str] = ()) -> None:
        super().__init__()
        self._outputs = outputs  # of the model, in words, for advice
        self._chosen = chosen
        entries = outputs.split("; ") if outputs else []
        self._others = [each for each in entries if each.partition(": ")[0] not in chosen]

    def call(self, graph: fx.GraphModule) -> bool:
        # Sizes and constants are computed for operators that then are what is not supported.
        # What makes channels of channels, or computes with indices, is there because something behind it is
        # not supported.
        found = [node for node in graph.graph.nodes if not _follows(node)]
        fed = [
            node
            for node in found
            if node.op != "call_function"
            or any(nodes.aten_name(x) != "sym_size" for x in node.all_input_nodes)
        ]
        for node in (*fed, *found, *graph.graph.nodes):
            self._check_operator(node)
        _check_sites(graph)
        _check_grids(graph)
        _check_names(graph)
        check_outputs(graph, self._chosen, self._outputs)
        return False

    def _check_operator(self, node: fx.Node) -> None:
        reason = refusal(node)
        if reason is not None:
            raise _error(node, f"{reason}{_named_end(node)}")
        name = nodes.changed(node)
        if name is not None:
            raise CaptureError(
                f"The forward gives the model's tensor {name!r} another value, and the output depends on "
                "it. A graph remembers nothing from frame to frame: pass the tensor among args."
            )
        if node.op in ("placeholder", "get_attr", "output"):
            return
        spec = operator_spec(node)
        if (spec is not None and (spec.layer or spec.map)) or node.target is operator.getitem:
            return
        node = row_choice(node) or node
        name = nodes.aten_name(node) or ""
        advice = _activation_advice() if name in _ACTIVATIONS else _ADVICE.get(name, "")
        if chooses(node):
            advice = ADVICE
        why = "".join(f" ({reason})" for reason in nodes.reasons(node))
        text = f"{nodes.where(node)} is not supported{why}{at_line(node)}. {self._way_out(node, advice)}"
        raise _error(node, text)

    def _way_out(self, node: fx.Node, advice: str) -> str:
        """What to do about an operator: the advice, or how to leave it out and for which other outputs."""
        end = "Or end the captured part before it" if advice else "End the captured part before it"
        before = module_before(node)
        if before is not None:
            others = f", or choose an output that does not need it ({'; '.join(self._others)})"
            more = others if self._others else ""
            return f"{advice} {end} with output={before}, what that module returns{more}.".lstrip()
        path = nodes.module_path(node)
        if path and not any(operator_spec(each) is not None for each in ancestors(node)):
            if nodes.aten_name(node) in _ACTIVATIONS:  # a limit of counts, say
                advice = ""
            return (
                f"{advice} If the module is a reader that makes the features of the voxels, let the captured "
                f"part begin after it: input={path!r}, or the path of a module around it."
            ).lstrip()
        if self._others:
            way = f"choose an output that does not need it ({'; '.join(self._others)}), or capture"
        else:
            way = "capture a submodule, or"
        return f"{advice} {end}: {way} a small nn.Module whose forward returns the value before.".lstrip()


def _error(node: fx.Node, text: str) -> CaptureError:
    error = CaptureError(text)
    error.end = module_before(node)
    return error


def _named_end(node: fx.Node) -> str:
    """An output before a node that cannot be captured, for the end of a message."""
    before = module_before(node)
    line = at_line(node).removeprefix(", at ")
    place = f" It is called at {line}." if line else ""
    return (
        place
        if before is None
        else f"{place} The value before it is output={before}, what that module returns."
    )


def _follows(node: fx.Node) -> bool:
    name, dtype = nodes.aten_name(node), getattr(node.meta.get("val"), "dtype", None)
    of_indices = name in nodes.ROWWISE and dtype is not None and not dtype.is_floating_point
    plain = name in nodes.ROWWISE and not nodes.reasons(node)
    return name in ("sym_size", "slice_scatter") or of_indices or plain


def _check_sites(graph: fx.GraphModule) -> None:
    """Every operand must be on the sites that its operator expects."""
    known: dict[fx.Node, fx.Node] = {}  # placeholder of features → its sites, from the first reader
    of_indices = nodes.read_as(graph, Kind.SITES)

    def sites(value: object) -> fx.Node | None:
        found = nodes.sites(value) if isinstance(value, fx.Node) else None
        return known.get(found, found) if found is not None else None

    def check(node: fx.Node, features: object, expected: fx.Node | None) -> None:
        found = sites(features)
        if (
            found is not None
            and expected is not None
            and found.op == "placeholder"
            and found not in of_indices
        ):
            known[found] = found = expected
        if found is None or expected is None or found is not expected:
            raise CaptureError(
                f"{nodes.where(node)} combines values of different sites: its features belong to "
                f"{_sites_text(found)}, the other side to {_sites_text(expected)}. "
                "Features and indices of one sparse tensor must stay together, and only tensors on the same "
                "sites can be added."
            )

    for node in graph.graph.nodes:
        spec = operator_spec(node)
        if spec is None or spec.sites is None:
            continue
        features = operands(node, Kind.FEATURES)
        if spec.sites is Sites.MAP:
            for value, expected in zip(features, nodes.input_sites(operands(node, Kind.MAP)[0]), strict=True):
                check(node, value, expected)
        elif spec.sites is Sites.SAME:
            for other in features[1:]:
                check(node, features[0], sites(other))
        elif features:
            check(node, features[0], nodes.index_sites(operands(node, Kind.SITES)[0]))


def _sites_text(found: fx.Node | None) -> str:
    if found is None:
        return "no sites known to the graph"
    if found.op == "placeholder":
        return f"the input {found.name!r}"
    return f"the output sites of layer {found.kwargs['name']!r}"


def _check_grids(graph: fx.GraphModule) -> None:
    """Sites have one grid: the one that their convolution makes, or the one of their first reader.

    A dense map alone may be larger, as it is padded for what follows: its sites then lie in the low corner.
    """
    grids: dict[fx.Node, list[int]] = {}
    ruled = [(n, spec.grid) for n in graph.graph.nodes if (spec := operator_spec(n)) and spec.grid]
    for node, rule in sorted(ruled, key=lambda each: each[1].larger):
        for operand in operands(node, Kind.SITES):
            sites = nodes.index_sites(operand)
            _check_grid(node, sites, list(node.kwargs[rule.argument]), grids, rule.larger)


def _check_grid(
    node: fx.Node,
    sites: fx.Node | None,
    grid: list[int],
    grids: dict[fx.Node, list[int]],
    larger: bool,
) -> None:
    if sites is None:
        return
    maker = operator_spec(sites)
    made: Any = sites.kwargs[maker.grid.made] if maker and maker.grid and maker.grid.made else grid
    known = grids.setdefault(sites, list(made))
    if known == grid or (larger and all(a >= b for a, b in zip(grid, known, strict=True))):
        return
    raise CaptureError(
        f"{nodes.where(node)} takes its sites on a grid of {grid}, but they lie on one of {known}: the "
        "forward changes spatial_shape in between. Leave it as the layers give it; only a dense map may be "
        "larger."
    )


def _check_names(graph: fx.GraphModule) -> None:
    seen: set[str] = set()
    for node in graph.graph.nodes:
        spec = operator_spec(node)
        if spec is None or not spec.layer:
            continue
        name = str(node.kwargs["name"])
        if not name or name in seen:
            raise CaptureError(f"Layer names must be unique and not empty, got {name!r} twice or empty.")
        seen.add(name)
