# SPDX-License-Identifier: Apache-2.0
"""The table of operators: every entry is complete, and says what the operators registered with torch do."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

import scn_fx.ops
from scn_fx.graph import KINDS
from scn_fx.onnx.dialect import DialectOperator, dialect_operators
from scn_fx.onnx.schemas import onnx_schema, register_schemas
from scn_fx.operators import ACTIVATIONS, OPERATORS, Kind, Operand, OperatorSpec, Range, Sites
from scn_fx.operators.activations import Activation, Parameter, activation_of_spconv
from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.onnx_form import OnnxForm
from scn_fx.operators.table import of_onnx_type, onnx_forms

every = pytest.mark.parametrize("name", list(OPERATORS))
layers_only = pytest.mark.parametrize("name", list(KINDS))

JOIN = OperatorSpec(
    name="join_for_tests",
    schema="(Tensor[] xs, *, str name) -> Tensor",
    operands=(Operand("xs", Kind.FEATURES, many=True),),
    gives=(Kind.FEATURES,),
    sites=Sites.SAME,
    ranges=(Range("input_dynamic_ranges", "xs"),),
    joins=True,
    suffix="join",
    onnx=OnnxForm(
        op_type="JoinForTests",
        doc="Channels side by side.",
        inputs=("xs",),
        types={"input_dynamic_ranges": "floats"},
        may_lack=frozenset({"input_dynamic_ranges"}),
        shape=lambda operands, attributes: [len(operands[0][0]), sum(x.shape[1] for x in operands[0])],
    ),
)


def _overload(name: str) -> Any:
    return getattr(torch.ops.scn_fx, name).default


@every
def test_torch_has_the_schema_of_the_table(name: str) -> None:
    spec, schema = OPERATORS[name], _overload(name)._schema
    declared = torch._C.parse_schema(f"scn_fx::{name}{spec.schema}")
    assert str(declared) == str(schema)
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    assert [argument.name for argument in positional] == [operand.name for operand in spec.operands]
    for argument, operand in zip(positional, spec.operands, strict=True):
        assert isinstance(argument.type, torch._C.OptionalType) == operand.optional
        assert isinstance(argument.type, torch._C.ListType) == operand.many
    assert len(schema.returns) == len(spec.gives)


@every
def test_what_a_spec_names_exists(name: str) -> None:
    spec = OPERATORS[name]
    names = {argument.name for argument in _overload(name)._schema.arguments}
    wanted = {each.attribute for each in spec.ranges} | {each.operand for each in spec.ranges}
    wanted |= {"precision", "output_precision"} if spec.quantisable else set()
    wanted |= {"activation", "activation_parameter"} if spec.fuses else set()
    wanted |= set(spec.map.numbers) if spec.map else set()
    wanted |= {spec.grid.argument, *filter(None, [spec.grid.made])} if spec.grid else set()
    assert wanted <= names
    assert (spec.sites is Sites.MAP) == (spec.layer and spec.position(Kind.MAP) is not None)
    assert spec.map is None or spec.gives[spec.map.item or 0] is Kind.MAP


@every
def test_every_operator_has_kernels_for_fake_tensors_and_both_devices(name: str) -> None:
    assert name in scn_fx.ops.__all__
    assert torch._library.simple_registry.singleton.find(f"scn_fx::{name}").fake_impl.kernel is not None
    for key in ("CPU", "CUDA"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"scn_fx::{name}", key)


def test_nothing_is_registered_that_the_table_lacks() -> None:
    helpers = {"product", "weight_gradient", "unsupported", "returned", "entry", "row_sums"}
    import scn_fx.capture.module_values
    import scn_fx.capture.scattered
    import scn_fx.capture.unsupported
    import scn_fx.ops.products  # noqa: F401

    every_name = {schema.name for schema in torch._C._jit_get_all_schemas()}
    found = {name.removeprefix("scn_fx::") for name in every_name if name.startswith("scn_fx::")}
    assert found - {JOIN.name} == set(OPERATORS) | helpers


@layers_only
def test_every_layer_has_a_name_and_an_onnx_form(name: str) -> None:
    spec = OPERATORS[name]
    assert spec.suffix or spec.sites is Sites.MAP  # capture names these
    assert spec.onnx is not None and SCN_FX in spec.onnx.dialects
    operator = dialect_operators(SCN_FX)[name]
    arguments = {a.name: str(a.type) for a in operator.overload._schema.arguments if a.kwarg_only}
    assert arguments.keys() == {"name", *spec.onnx.types}
    written = [operand for operand in spec.operands if operand.kind not in (Kind.SITES, Kind.MAP)]
    assert len(spec.onnx.inputs) == len(written)
    register_schemas()
    schema = onnx.defs.get_schema(spec.onnx.op_type, domain="scn_fx")
    assert set(schema.attributes) == set(spec.onnx.types)
    assert {n for n, a in schema.attributes.items() if a.required} == set(spec.onnx.required)
    assert of_onnx_type(spec.onnx.op_type) is spec


def test_types_of_nodes_are_told_apart() -> None:
    types = [op_type for _, form in onnx_forms() for op_type in (form.op_type, *form.also_read)]
    assert len(types) == len(set(types))
    assert of_onnx_type("QuantAdd") is of_onnx_type("Add")
    assert of_onnx_type("Conv") is None


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_every_activation_is_complete(name: str) -> None:
    activation = ACTIVATIONS[name]
    default = 0.0 if activation.parameter is None else activation.parameter.default
    x = torch.tensor([-4.0, -2.0, -0.5, 0.0, 0.5, 2.0, 4.0, 8.0, torch.nan])
    for parameter in (default, -1.5):
        y = activation.compute(x, parameter)
        assert bool(y[-1].isnan()) and y.dtype == x.dtype
        expected = (
            activation.compute(x + 2**-6, parameter) - activation.compute(x - 2**-6, parameter)
        ) * 2**5
        found = activation.gradient(torch.full((9,), 3.0), y, lambda: x, parameter)
        away = torch.tensor([0, 1, 2, 4, 5, 6, 7])  # from the corner at zero
        assert torch.allclose(found[away], 3 * expected[away], atol=1e-3)
    y = activation.compute(x, default)
    for half in (torch.float16, torch.bfloat16):
        assert activation.compute(x.to(half), default).dtype == half
    assert activation_of_spconv("None_" if name == "None" else name) is activation
    if not activation.operator:
        return
    spec = OPERATORS[activation.operator]
    assert spec.activation is activation and spec.aten.keys() == activation.aten.keys()
    assert all(hasattr(torch.ops.aten, aten) for aten in activation.aten)
    assert torch.equal(_overload(spec.name)(x[:-1], name="a"), y[:-1])
    positive = activation.compute(3.0 * x[:-1], default)
    assert torch.equal(positive, 3.0 * y[:-1]) == activation.homogeneous
    assert torch.equal(y[:-1], x[:-1].clamp(min=0)) == activation.rectifies


def test_the_activations_of_spconv_are_there() -> None:
    from cumm import tensorview as tv

    names = [name for name in dir(tv.gemm.Activation) if name[0].isupper()]
    assert len(names) == 4 and all(activation_of_spconv(name) is not None for name in names)
    assert activation_of_spconv("Softplus") is None


def test_an_activation_with_a_number_carries_it_everywhere() -> None:
    leaky = Activation(
        name="Leaky",
        operator="leaky",
        compute=lambda x, slope: torch.where(x > 0, x, slope * x),
        gradient=lambda grad, output, slope: grad,
        parameter=Parameter("negative_slope", 0.01, "alpha"),
    )
    assert leaky.keywords(0.2) == {"activation_parameter": 0.2}
    assert leaky.attributes(0.2) == {"alpha": 0.2}
    from scn_fx.operators.activation import activation_spec

    spec = activation_spec(leaky)
    assert "float activation_parameter=0.01" in spec.schema and spec.onnx is not None
    assert spec.onnx.types == {"alpha": "f"}
    assert spec.onnx.arguments({"alpha": 0.3}) == {"activation_parameter": 0.3}
    assert spec.onnx.arguments({}) == {"activation_parameter": 0.01}
    assert spec.onnx.attributes(SimpleNamespace(activation_parameter=0.5)) == {"alpha": 0.5}


def test_an_operand_may_be_a_list_of_features() -> None:
    operator = DialectOperator(JOIN, JOIN.onnx)  # type: ignore[arg-type]
    operator.define()
    a, b = torch.rand(7, 2), torch.rand(7, 3)
    made = operator.overload([a, b], name="join", input_dynamic_ranges=[1.0, 2.0])
    assert made.shape == (7, 5)
    assert operator.written([[a, b]]) == [a, b]
    assert operator.attributes({"name": "join", "input_dynamic_ranges": (1.0, 2.0)}) == {
        "input_dynamic_ranges": [1.0, 2.0]
    }
    (parameter,) = onnx_schema(JOIN, JOIN.onnx).inputs  # type: ignore[arg-type]
    assert parameter.option is onnx.defs.OpSchema.FormalParameterOption.Variadic
    assert [o.name for o in JOIN.inputs] == ["xs"] and JOIN.quantisable and not JOIN.fuses


def test_lists_are_operands_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    from scn_fx import graph_nodes
    from scn_fx.quant.ranges import LayerRanges, range_keywords

    library = torch.library.Library("scn_fx", "FRAGMENT")
    library.define(f"{JOIN.name}{JOIN.schema}")
    monkeypatch.setattr(graph_nodes, "OPERATORS", {**OPERATORS, JOIN.name: JOIN})
    graph = torch.fx.Graph()
    a, b = graph.placeholder("a"), graph.placeholder("b")
    node = graph.call_function(_overload(JOIN.name), ([a, b],), {"name": "join"})
    assert graph_nodes.operands(node, Kind.FEATURES) == (a, b)
    layer: Any = SimpleNamespace(spec=JOIN)
    assert range_keywords(layer, LayerRanges((1.0, 2.0))) == {"input_dynamic_ranges": [1.0, 2.0]}


def test_specs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        OPERATORS["add"].name = "sum"  # type: ignore[misc]
    assert all(re.fullmatch(r"[a-z_0-9]+", name) for name in OPERATORS)
