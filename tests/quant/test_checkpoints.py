# SPDX-License-Identifier: Apache-2.0
"""Ranges out of state dicts as pytorch-quantization and modelopt write them."""

from __future__ import annotations

import datetime
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from modelopt.torch.quantization.nn import TensorQuantizer

import quant
from scn_fx.errors import CalibrationError, CalibrationWarning
from scn_fx.graph import layers
from tests.quant.graphs import GraphBuilder, frame, residual

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


def warned(state: dict[str, Any], **options: Any) -> list[str]:
    """The warnings of a load into `residual()`, which are all CalibrationWarnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quant.load_pytorch_quantization(residual(), state, **options)
    assert all(issubclass(w.category, CalibrationWarning) for w in caught)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1 / 3, "3 times too small"), (1 / 20, "20 times too small"), (20, "20 times too large")],
)
def test_weight_ranges_that_do_not_fit_are_pointed_out_in_both_directions(factor: float, words: str) -> None:
    state = checkpoint()
    for name in ("conv1.0.conv1", "extra_conv.0"):
        state[f"{name}._weight_quantizer._amax"] = state[f"{name}._weight_quantizer._amax"] * factor
    (text,) = warned(state)  # one warning for all layers
    assert text.startswith("The weight ranges of 2 of 4 convolutions do not fit")
    assert f"conv1.0.conv1 ({words}), extra_conv.0 ({words})" in text
    assert "before its BatchNorms were folded" in text


def test_one_channel_is_enough_and_faint_or_dead_channels_are_not() -> None:
    state = checkpoint()
    amax = state["conv1.0.conv1._weight_quantizer._amax"].clone()
    state["conv1.0.conv1._weight_quantizer._amax"] = amax
    assert warned(state) == []
    amax[2] *= 1.4  # an amax that was trained along
    assert warned(state) == []
    amax[2] *= 2
    assert "conv1.0.conv1 (2.8 times too large)" in warned(state)[0]
    graph = residual()
    graph.conv1_0_conv1_weight[2] *= 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quant.load_pytorch_quantization(graph, state)


def test_input_ranges_are_compared_with_frames_if_there_are_any() -> None:
    frames = [frame(seed) for seed in range(3)]
    calibrated, state = residual(), checkpoint()
    result = quant.calibrate(calibrated, frames, method="max")
    for name in CONVOLUTIONS:
        state[f"{name}._input_quantizer._amax"] = torch.tensor(result.ranges[name].inputs[0])
    add = max(result.ranges["conv1.0.add"].inputs)
    state["conv1.0.quant_add._input_quantizer._amax"] = torch.tensor(add)
    assert warned(state, frames=frames) == []
    for factor, words in ((8.0, "times too large"), (0.05, "times too small")):
        changed = state | {
            "conv1.0.conv2._input_quantizer._amax": factor * result.ranges["conv1.0.conv2"].inputs[0]
        }
        (text,) = warned(changed, frames=frames)
        assert "input ranges of 1 of 5 layers" in text and "conv1.0.conv2" in text and words in text


def test_readers_of_one_value_must_agree() -> None:
    build = GraphBuilder()
    x = build.conv(build.features, "stem", (3, 4))
    left, right = build.conv(x, "left", (4, 4)), build.conv(x, "right", (4, 4))
    graph = build.finish(build.dense(build.add(left, right, "add")))
    state: dict[str, Any] = {"add._input_quantizer._amax": torch.tensor(3.0)}
    for layer in layers(graph):
        if layer.kind == "convolution":
            state[f"{layer.name}._input_quantizer._amax"] = torch.tensor(2.0)
            state[f"{layer.name}._weight_quantizer._amax"] = layer.weight.abs().amax(
                (1, 2, 3, 4), keepdim=True
            )
    state["right._input_quantizer._amax"] = torch.tensor(9.0)
    with pytest.warns(CalibrationWarning, match=r"far apart: left \(2\) and right \(9\)"):
        quant.load_pytorch_quantization(graph, state)


def test_the_full_name_decides_between_two_places() -> None:
    graph = residual()
    state = checkpoint("teacher.") | checkpoint()
    state["conv1.0.conv1._input_quantizer._amax"] = torch.tensor(5.5)
    assert quant.load_pytorch_quantization(graph, state).prefix == ""
    assert next(x for x in layers(graph) if x.name == "conv1.0.conv1").input_dynamic_range == 5.5


def test_the_complete_place_wins_over_a_part() -> None:
    partly = {k: v for k, v in checkpoint("student.").items() if "conv2" not in k}
    assert quant.load_pytorch_quantization(residual(), partly | checkpoint("teacher.")).prefix == "teacher."


def test_two_containers_are_two_places_and_either_can_be_chosen() -> None:
    content = {"state_dict": checkpoint("backbone."), "ema_state_dict": checkpoint("backbone.")}
    with pytest.raises(CalibrationError, match=r"'state_dict.backbone.', 'ema_state_dict.backbone.'. Choose"):
        quant.load_pytorch_quantization(residual(), content)
    chosen = quant.load_pytorch_quantization(residual(), content, prefix="ema_state_dict.backbone")
    assert chosen.prefix == "ema_state_dict.backbone."


def test_compiled_models_and_files(tmp_path: Path) -> None:
    state = {key.replace("conv1.0.", "conv1._orig_mod.0."): v for key, v in checkpoint("module.").items()}
    torch.save({"model": state, "when": datetime.datetime(2024, 1, 1)}, tmp_path / "ptq.pth")
    report = quant.load_pytorch_quantization(residual(), tmp_path / "ptq.pth")
    assert report.prefix == "model.module." and len(report.used) == 9


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
