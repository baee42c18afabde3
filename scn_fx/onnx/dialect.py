# SPDX-License-Identifier: Apache-2.0
"""The operators of the export dialect: one for each node type of files, with all of the node's attributes.

The view of a graph is made of these, and both exporters write them by one loop each. They are registered
with torch in a namespace of their own, under the names of the operators that become them. They take sites and
kernel maps as well, which no file holds and from which a result has its number of rows; they compute shapes
and no values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from scn_fx.operators.activations import ACTIVATIONS, NO_ACTIVATION
from scn_fx.operators.dialects import LIBSPCONV
from scn_fx.operators.onnx_form import OnnxForm, half_result
from scn_fx.operators.spec import Kind, OperatorSpec
from scn_fx.operators.table import onnx_forms

__all__ = [
    "DOMAIN",
    "DOMAIN_VERSION",
    "NAMESPACE",
    "OPSET",
    "DialectOperator",
    "dialect_operators",
    "edge_name",
]

DOMAIN = "scn_fx"
DOMAIN_VERSION = 1

OPSET = 18
"""Opset of the default domain in the files. No node uses it, but torch's version converter runs below 18."""

NAMESPACE = "scn_fx_onnx"
"""Of the operators here, in torch."""

_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_TYPES = {"i": "int", "f": "float", "s": "str", "ints": "int[]", "floats": "float[]"}


@dataclass(frozen=True)
class DialectOperator:
    """``scn_fx_onnx::<spec.name>``.

    Attributes:
        spec: the operator of graphs that becomes it.
        form: the node.
    """

    spec: OperatorSpec
    form: OnnxForm

    @property
    def overload(self) -> Any:
        """The operator in torch: the operands of `spec`, the node's name, and its attributes as keywords."""
        return getattr(getattr(torch.ops, NAMESPACE), self.spec.name).default

    @property
    def of_sites(self) -> bool:
        """Whether the result has a row per site, so that its size is not fixed."""
        return Kind.FEATURES in self.spec.gives

    def written(self, operands: Sequence[Any]) -> list[Any]:
        """The operands that are inputs of the node; lists are flattened."""
        found: list[Any] = []
        for operand, value in zip(self.spec.operands, operands, strict=True):
            if operand.kind not in (Kind.SITES, Kind.MAP):
                found += value if isinstance(value, list | tuple) else [value]
        return found

    def belongs(self, dialect: str, keywords: Mapping[str, Any]) -> bool:
        """Whether `dialect` has such a node, with its activation."""
        fused = ACTIVATIONS[keywords.get("activation") or NO_ACTIVATION]
        return dialect in self.form.dialects and dialect in fused.attribute_in

    def attributes(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """The node's attributes, in the order in which they are written; absent ones left out."""
        return {
            name: list(value) if isinstance(value, list | tuple) else value
            for name in self.form.types
            if (value := keywords.get(name)) is not None
        }

    def result(self, *operands: Any, **keywords: Any) -> torch.Tensor:
        """Zeros of the result's shape and dtype."""
        values = [value[0] if isinstance(value, list | tuple) else value for value in operands]
        shape = self.form.shape(operands, keywords)
        dtype = values[0].dtype
        if self.form.precise:
            dtype = torch.float16 if half_result(keywords) else torch.float32
        made: torch.Tensor = values[0].new_zeros(shape, dtype=dtype)
        return made

    def define(self) -> None:
        """Register it with torch."""
        tensors = [
            f"Tensor{'[]' if o.many else '?' if o.optional else ''} {o.name}" for o in self.spec.operands
        ]
        keywords = ["str name"]
        keywords += [f"{_TYPES[kind]} {name}" for name, kind in self.form.required.items()]
        keywords += [f"{_TYPES[kind]}? {name}=None" for name, kind in self.form.optional.items()]
        schema = f"{self.spec.name}({', '.join(tensors)}, *, {', '.join(keywords)}) -> Tensor"
        _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        _library.impl(self.spec.name, self.result, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{self.spec.name}", self.result, lib=_library)


def edge_name(node: str) -> str:
    """The name of a node's result in files, so that graphs can be read along their edges.

    The suffix keeps it apart from the graph's input, outputs and parameters; of names without it TorchScript
    takes none that is a number, and drops a number at the end.
    """
    return f"{node}.out"


@cache
def dialect_operators(dialect: str = LIBSPCONV) -> Mapping[str, DialectOperator]:
    """The operators of a dialect, by the name of the operator that becomes them."""
    return {spec.name: _registered(spec.name) for spec, form in onnx_forms() if dialect in form.dialects}


@cache
def _registered(name: str) -> DialectOperator:
    (made,) = [DialectOperator(spec, form) for spec, form in onnx_forms() if spec.name == name]
    made.define()
    return made
