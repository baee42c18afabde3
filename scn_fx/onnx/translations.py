# SPDX-License-Identifier: Apache-2.0
"""Translations of the operators for the dynamo exporter (``torch.onnx.export(dynamo=True)``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import evaluator, values

from scn_fx.errors import ExportError
from scn_fx.onnx.dialect import DOMAIN, DOMAIN_VERSION, DialectOperator, dialect_operators, edge_name
from scn_fx.onnx.metadata import DOC, metadata_entries
from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.maps import INPUT_SITES
from scn_fx.operators.onnx_form import Attributes
from scn_fx.operators.spec import OperatorSpec
from scn_fx.operators.table import OPERATORS

__all__ = ["translation_table"]

# An onnx_ir.Value. The exporter reads the annotations of a translation and stumbles over that class: it takes
# anything with a `dtype` attribute for a tensor type of that dtype.
Operand = Any


class _NamedNode(ir.Node):
    """A node that keeps its module path as name and drops the exporter's notes.

    The exporter renames every node after its torch.fx value once the translation has returned, and attaches a
    stack trace and a class hierarchy to each. Tools find layers by module path, so later names are ignored.
    """

    module_path: str | None = None

    @property
    def name(self) -> str | None:
        return self.module_path or super().name

    @name.setter
    def name(self, value: str | None) -> None:
        self.module_path = self.module_path or value

    @property
    def metadata_props(self) -> dict[str, str]:  # type: ignore[override]
        return {}  # a fresh one: what the exporter writes into it is dropped


class _NamedValue(ir.Value):
    """A value that keeps its node's name while the exporter renames it after its torch.fx value.

    That happens once the translation has returned, before the node joins its graph; whoever names it later,
    as the exporter does with outputs, is heard.
    """

    @property  # type: ignore[override]
    def name(self) -> str | None:
        return super().name

    @name.setter
    def name(self, value: str | None) -> None:
        producer = self.producer()
        if super().name is None or producer is None or producer.graph is not None:
            ir.Value.name.fset(self, value)  # type: ignore[attr-defined]


def _recorder_nodes() -> list[ir.Node] | None:
    """The node list of the exporter's recorder, or None where a release of torch hides it."""
    found = getattr(evaluator.default(), "nodes", None)
    return found if isinstance(found, list) else None


def _emit(name: str, op_type: str, inputs: Sequence[Operand], attributes: Attributes) -> Operand:
    """Record one node of the dialect with the running exporter and return its output."""
    nodes = _recorder_nodes()
    if nodes is None:
        # The documented way; the exporter then chooses the name.
        return values.Opset(DOMAIN, DOMAIN_VERSION)[op_type](*inputs, **attributes)
    node = _NamedNode(
        DOMAIN,
        op_type,
        inputs,
        [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()],
        version=DOMAIN_VERSION,
        name=name,
        outputs=[_NamedValue(name=edge_name(name))],
    )
    node.module_path = name
    nodes.append(node)
    return node.outputs[0]


def _nothing() -> Operand:
    """A value outside the graph, for what the dialect leaves implicit: indices and kernel maps.

    No translation reads it. Returning an input instead would let the exporter rename that input.
    """
    return ir.Value(name="implicit")


def _node(operator: DialectOperator, dialect: str) -> Callable[..., Operand]:
    def translation(*operands: Operand, **keywords: Any) -> Operand:
        if not operator.belongs(dialect, keywords):
            raise ExportError(
                f"Layer {keywords['name']!r}: the view is of another dialect than the options, which are of "
                f"{dialect}. Give onnx_view and export_options the same dialect."
            )
        attributes = operator.attributes(keywords)
        return _emit(keywords["name"], operator.form.op_type, operator.written(operands), attributes)

    return translation


def _implicit(spec: OperatorSpec) -> Callable[..., Any]:
    def translation(*operands: Operand, **keywords: Any) -> Any:
        made = tuple(_nothing() for _ in spec.gives)
        return made if len(made) > 1 else made[0]

    return translation


def _refused(spec: OperatorSpec) -> Callable[..., Any]:
    def translation(*operands: Operand, name: str, **keywords: Any) -> Any:
        raise ExportError(
            f"Layer {name!r}: {spec.name} is an operator of captured graphs, not of files. Export "
            "onnx_view(graph) instead of the graph itself."
        )

    return translation


def translation_table(meta: Mapping[str, Any], dialect: str) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The ``custom_translation_table`` for a graph whose "scn_fx" metadata is `meta`."""
    entries = metadata_entries(meta, dialect)

    def input_sites(features: Operand, *, spatial_shape: Sequence[int] = ()) -> Operand:
        # The one translation that runs once in each export and sees a value that belongs to the graph.
        graph = features.graph
        if graph is not None:
            for key in [key for key in graph.metadata_props if key.startswith("pkg.torch.")]:
                del graph.metadata_props[key]  # the signature of the whole program: longer than the graph
            graph.metadata_props.update(entries)
            graph.doc_string = DOC
        return _nothing()

    table: dict[Callable[..., Any], Callable[..., Any]] = {
        operator.overload: _node(operator, dialect)
        for operator in dialect_operators(SCN_FX).values()  # which has those of every dialect
    }
    for spec in OPERATORS.values():
        overload = getattr(torch.ops.scn_fx, spec.name).default
        table[overload] = _refused(spec) if spec.layer else _implicit(spec)
    table[getattr(torch.ops.scn_fx, INPUT_SITES.name).default] = input_sites
    return table
