# SPDX-License-Identifier: Apache-2.0
"""Ranges out of state dicts as pytorch-quantization and modelopt write them."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from modelopt.torch.quantization.nn import TensorQuantizer

import quant
from scn_fx.errors import CalibrationError
from scn_fx.graph import layers
from tests.quant.graphs import frame, residual

CONVOLUTIONS = ("conv_input.0", "conv1.0.conv1", "conv1.0.conv2", "extra_conv.0")


def checkpoint(
    prefix: str = "", underscore: str = "_", add: str = "quant_add", split: bool = False
) -> dict[str, Any]:
    """A state dict for `residual()` with weights, ranges and a stranger's quantizer."""
    state: dict[str, Any] = {}
    for number, layer in enumerate(layers(residual())):
        if layer.kind == "convolution":
            module = prefix + layer.name
            state[f"{module}.weight"] = layer.weight
            state[f"{module}.{underscore}input_quantizer._amax"] = torch.tensor(1.5 + number)
            amax = layer.weight.abs().amax(dim=(1, 2, 3, 4), keepdim=True)
            state[f"{module}.{underscore}weight_quantizer._amax"] = amax
    names = (f"{underscore}input0", f"{underscore}input1") if split else (f"{underscore}input",)
    for number, name in enumerate(names):
        state[f"{prefix}conv1.0.{add}.{name}_quantizer._amax"] = torch.tensor([7.5 + number])
    state["head.0._input_quantizer._amax"] = torch.tensor(3.0)
    return state


def snapshot(graph: torch.fx.GraphModule) -> list[dict[str, Any]]:
    return [dict(n.kwargs) for n in graph.graph.nodes]


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.encoders.lidar.backbone."])
@pytest.mark.parametrize("underscore", ["_", ""])
def test_ranges_arrive_in_the_graph(prefix: str, underscore: str) -> None:
    graph = residual()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = quant.load_pytorch_quantization(graph, checkpoint(prefix, underscore))
    by_name = {layer.name: layer for layer in layers(graph)}
    assert by_name["conv_input.0"].input_dynamic_range == 1.5
    assert by_name["conv1.0.conv2"].input_dynamic_range == 3.5
    add = by_name["conv1.0.add"]
    assert (add.input0_dynamic_range, add.input1_dynamic_range) == (7.5, 7.5)
    for name in CONVOLUTIONS:
        expected = by_name[name].weight.abs().amax(dim=(1, 2, 3, 4)).tolist()
        assert by_name[name].weight_dynamic_ranges == expected
    assert by_name["conv1.0.conv1"].precision == "int8" and by_name["conv_input.0"].precision == "fp16"
    assert report.prefix == prefix
    assert report.unused == ("head.0._input_quantizer._amax",) and report.missing == ()
    assert len(report.used) == 9
    assert graph.meta["scn_fx"]["calibration"] == {"method": "checkpoint", "frames": 0}
    assert graph(*frame(0)).isfinite().all()


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state"])
def test_wrapped_checkpoints(wrapper: str) -> None:
    graph = residual()
    quant.load_pytorch_quantization(graph, {"epoch": 3, wrapper: checkpoint("backbone.")})
    assert graph.meta["scn_fx"]["calibration"] is not None


@pytest.mark.parametrize("add", ["quant_add", "add", "addop", "QuantAdd_0"])
def test_names_that_scripts_give_to_the_add(add: str) -> None:
    graph = residual()
    quant.load_pytorch_quantization(graph, checkpoint(add=add, split=True))
    layer = next(layer for layer in layers(graph) if layer.kind == "add")
    assert (layer.input0_dynamic_range, layer.input1_dynamic_range) == (7.5, 8.5)


def test_keys_are_those_of_real_quantizer_modules() -> None:
    block = torch.nn.Module()
    block._input_quantizer, block._weight_quantizer = TensorQuantizer(), TensorQuantizer()
    block._input_quantizer.amax = torch.tensor(2.0)
    block._weight_quantizer.amax = torch.ones(4, 1, 1, 1, 1)
    model = torch.nn.Module()
    model.add_module("conv", block)
    assert set(model.state_dict()) == {"conv._input_quantizer._amax", "conv._weight_quantizer._amax"}


def test_a_range_for_the_whole_weight_serves_every_channel() -> None:
    graph, state = residual(), checkpoint()
    state["extra_conv.0._weight_quantizer._amax"] = torch.tensor(9.0)
    quant.load_pytorch_quantization(graph, state)
    assert next(x for x in layers(graph) if x.name == "extra_conv.0").weight_dynamic_ranges == [9.0] * 8


def test_spconv_1_weights_have_their_channels_last() -> None:
    graph, state = residual(), checkpoint()
    for name in CONVOLUTIONS:
        state[f"{name}.weight"] = state[f"{name}.weight"].permute(1, 2, 3, 4, 0)
        key = f"{name}._weight_quantizer._amax"
        state[key] = state[key].reshape(1, 1, 1, 1, -1)
    quant.load_pytorch_quantization(graph, state)
    for layer in layers(graph):
        if layer.kind == "convolution":
            assert layer.weight_dynamic_ranges == layer.weight.abs().amax(dim=(1, 2, 3, 4)).tolist()


def test_float_layers_may_lack_ranges() -> None:
    graph, state = residual(), checkpoint()
    del state["conv_input.0._input_quantizer._amax"], state["extra_conv.0._weight_quantizer._amax"]
    with pytest.raises(
        CalibrationError, match=r"lacks 1 ranges of int8 layers: extra_conv.0._weight_quantizer._amax"
    ):
        quant.load_pytorch_quantization(graph, state)
    report = quant.load_pytorch_quantization(graph, state, precision={"extra*": "fp16"})
    assert report.missing == ("conv_input.0._input_quantizer._amax", "extra_conv.0._weight_quantizer._amax")
    assert "conv_input.0._weight_quantizer._amax" in report.unused


def test_a_weight_beyond_its_range_is_pointed_out() -> None:
    state = checkpoint()
    state["extra_conv.0._weight_quantizer._amax"] = state["extra_conv.0._weight_quantizer._amax"] / 3
    with pytest.warns(UserWarning, match=r"extra_conv.0: weights are up to 3 times .* before its BatchNorms"):
        quant.load_pytorch_quantization(residual(), state)


def changed(**changes: Any) -> dict[str, Any]:
    """`checkpoint()` with values replaced; None removes a key. "conv1.0.conv1/input" names its quantizer."""
    state = checkpoint()
    for short, value in changes.items():
        module, _, quantizer = short.partition("/")
        key = f"{module}._{quantizer}_quantizer._amax"
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return state


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({"conv1.0.conv1.weight": torch.zeros(1)}, "holds no quantizer ranges: none of its 1 keys"),
        (
            {"other._input_quantizer._amax": torch.ones(1)},
            "No quantizer of the checkpoint belongs to a layer",
        ),
        (checkpoint("student.") | checkpoint("teacher."), "under several prefixes: 'student.', 'teacher.'"),
        (
            changed(**{"conv1.0.conv1/input": None}),
            r"lacks 1 ranges .*conv1.0.conv1._input_quantizer._amax.*head.0",
        ),
        (changed(**{"conv1.0.quant_add/input": None}), "conv1.0.quant_add._input_quantizer._amax"),
        (
            changed(**{"conv1.0.quant_add/input": None, "conv1.0.quant_add/input1": torch.ones(1)}),
            "_input0_quantizer",
        ),
        (changed(**{"conv1.0.add2/input": torch.ones(1)}), "several quantised modules could be this Add"),
        (changed(**{"conv1.0.conv1/input": torch.tensor(0.0)}), "conv1.0.conv1._input.*must be positive"),
        (changed(**{"conv1.0.conv1/input": torch.tensor(float("nan"))}), "must be a finite number"),
        (changed(**{"conv1.0.conv1/input": torch.ones(4)}), r"an input has one range, got \[4\]"),
        (
            changed(**{"extra_conv.0/weight": torch.ones(1, 1, 1, 1, 4)}),
            r"per output channel \(8\).*per input",
        ),
        (changed(**{"conv1.0.conv1/weight": torch.ones(1, 1, 1, 1, 4)}), "one per input channel"),
        (
            changed(**{"conv1.0.conv1/weight": torch.ones(3, 1, 1, 1, 1)}),
            r"per output channel \(4\).*got \[3, 1",
        ),
        (changed(**{"conv1.0.conv1/weight": -torch.ones(4, 1, 1, 1, 1)}), "finite and not negative"),
        (
            changed(**{"conv1.0.conv1/weight": torch.zeros(4, 1, 1, 1, 1)}),
            "channel 0 is zero, but its weights are not",
        ),
    ],
)
def test_checkpoints_that_do_not_fit(state: dict[str, Any], match: str) -> None:
    graph = residual()
    before = snapshot(graph)
    with pytest.raises(CalibrationError, match=match):
        quant.load_pytorch_quantization(graph, state)
    assert snapshot(graph) == before
    assert graph.meta["scn_fx"]["calibration"] is None


def test_a_prefix_can_be_given() -> None:
    graph = residual()
    state = checkpoint("student.") | checkpoint("teacher.")
    assert quant.load_pytorch_quantization(graph, state, prefix="teacher.").prefix == "teacher."
    with pytest.raises(CalibrationError, match="lacks"):
        quant.load_pytorch_quantization(graph, state, prefix="nobody.")
