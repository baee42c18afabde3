# SPDX-License-Identifier: Apache-2.0
"""Ranges as state dicts: read back bit for bit, and taken by real modelopt modules."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import quant
from scn_fx.errors import CalibrationError, WriteError
from scn_fx.quant.ranges import LayerRanges, quantizable, read_ranges
from tests.quant.graphs import GraphBuilder, frame, residual

FRAMES = [frame(seed) for seed in range(2)]


@pytest.fixture(scope="module")
def graph() -> torch.fx.GraphModule:
    graph = residual()
    quant.calibrate(graph, FRAMES, method="max", progress=False)
    return graph


def ranges(graph: torch.fx.GraphModule) -> dict[str, LayerRanges | None]:
    return {layer.name: read_ranges(layer) for layer in quantizable(graph)}


def read_back(state: Any, **options: Any) -> dict[str, LayerRanges | None]:
    fresh = residual()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = quant.load_pytorch_quantization(fresh, state, **options)
    assert report.unused == () and report.missing == ()
    return ranges(fresh)


@pytest.mark.parametrize("layout", ["pytorch-quantization", "modelopt"])
@pytest.mark.parametrize("prefix", ["", "backbone.", "encoders.lidar"])
def test_a_round_trip_is_exact(graph: torch.fx.GraphModule, layout: str, prefix: str) -> None:
    state = quant.save_pytorch_quantization(graph, layout=layout, prefix=prefix, adds="two")
    assert read_back(state) == ranges(graph)
    assert all(value.dtype == torch.float32 for value in state.values())


def test_names_and_shapes_of_both_layouts(graph: torch.fx.GraphModule) -> None:
    state = quant.save_pytorch_quantization(graph, adds="largest", prefix="net")
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        **{
            f"net.{name}._{what}_quantizer._amax": shape
            for name, out in (("conv_input.0", 4), ("conv1.0.conv1", 4), ("conv1.0.conv2", 4),
                              ("extra_conv.0", 8))
            for what, shape in (("input", ()), ("weight", (out, 1, 1, 1, 1)))
        },
        "net.conv1.0.quant_add._input_quantizer._amax": (),
    }  # fmt: skip
    other = quant.save_pytorch_quantization(graph, layout="modelopt", adds="two", add_name=None)
    assert "conv1.0.add.input0_quantizer._amax" in other and "conv_input.0.weight_quantizer._amax" in other
    assert read_back(other) == ranges(graph)


def test_one_quantizer_for_two_different_ranges_needs_a_word(graph: torch.fx.GraphModule) -> None:
    first, second = next(layer for layer in quantizable(graph) if layer.kind == "add").inputs
    assert first is not second
    with pytest.raises(CalibrationError, match=r"hold two different ranges: conv1\.0\.add \([\d.]+ and"):
        quant.save_pytorch_quantization(graph)
    found = read_back(quant.save_pytorch_quantization(graph, adds="largest"))["conv1.0.add"]
    own = ranges(graph)["conv1.0.add"]
    assert own is not None and found is not None and found.inputs == (max(own.inputs),) * 2
    equal = residual()
    quant.calibrate(equal, FRAMES, method="max", progress=False)
    next(x for x in quantizable(equal) if x.kind == "add").set(
        input0_dynamic_range=2.0, input1_dynamic_range=2.0
    )
    assert read_back(quant.save_pytorch_quantization(equal)) == ranges(equal)


def test_files(graph: torch.fx.GraphModule, tmp_path: Path) -> None:
    path = tmp_path / "ranges.pth"
    state = quant.save_pytorch_quantization(graph, path, adds="two")
    loaded = torch.load(path, weights_only=True)
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)
    assert read_back(path) == ranges(graph)
    with pytest.raises(WriteError):
        quant.save_pytorch_quantization(graph, tmp_path / "nowhere" / "x.pth", adds="two")


def test_what_cannot_be_saved(graph: torch.fx.GraphModule) -> None:
    with pytest.raises(CalibrationError, match="no ranges to save"):
        quant.save_pytorch_quantization(residual())
    with pytest.raises(CalibrationError, match="Unknown layout 'trt'; expected one of pytorch-quantization"):
        quant.save_pytorch_quantization(graph, layout="trt")
    with pytest.raises(CalibrationError, match="Unknown adds='max'; expected one of shared, largest, two"):
        quant.save_pytorch_quantization(graph, adds="max")
    build = GraphBuilder()
    x = build.conv(build.features, "a", (3, 4))
    y = build.add(x, x, "b.add")
    doubled = build.finish(build.dense(build.add(y, x, "b.add_1")))
    quant.calibrate(doubled, FRAMES, method="max", progress=False)
    with pytest.raises(CalibrationError, match=r"b\.add and b\.add_1 would both be b\.quant_add.*=None"):
        quant.save_pytorch_quantization(doubled, adds="largest")
    quant.save_pytorch_quantization(doubled, adds="largest", add_name=None)


def test_real_modelopt_modules_take_the_state_and_give_it_back(graph: torch.fx.GraphModule) -> None:
    """A model of modelopt's own quantised modules loads the ranges, quantises with them and saves them."""
    import modelopt.torch.quantization as mtq
    from modelopt.torch.quantization.nn import TensorQuantizer

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv3d(4, 4, 3), nn.Conv3d(4, 4, 3)
            self.quant_add = nn.Module()

    net = nn.Module()
    net.conv_input = nn.Sequential(nn.Conv3d(3, 4, 3))
    net.conv1 = nn.Sequential(Block())
    net.extra_conv = nn.Sequential(nn.Conv3d(4, 8, 3))

    def calibrate(module: nn.Module) -> None:
        for child in module.modules():
            if isinstance(child, nn.Conv3d):
                child(torch.randn(1, child.in_channels, 3, 3, 3))

    mtq.quantize(net, mtq.INT8_DEFAULT_CFG, calibrate)
    # Beforehand modelopt would take the model for a quantised one.
    net.conv1[0].quant_add.input_quantizer = TensorQuantizer()
    net.conv1[0].quant_add.input_quantizer.amax = torch.tensor(1.0)
    state = quant.save_pytorch_quantization(graph, layout="modelopt", adds="largest")
    outcome = net.load_state_dict(state, strict=False)
    assert outcome.unexpected_keys == []
    assert all(key.endswith((".weight", ".bias")) for key in outcome.missing_keys)
    found = ranges(graph)["conv1.0.conv1"]
    quantizer = net.conv1[0].conv1.input_quantizer
    assert found is not None and float(quantizer.amax) == found.inputs[0]
    x = torch.linspace(-2, 2, 41)
    step = found.inputs[0] / 127
    wanted = (x / step).round().clamp(-127, 127) * step
    assert torch.allclose(quantizer(x), wanted, atol=step / 100)
    again = {key: value for key, value in net.state_dict().items() if key.endswith("_amax")}
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)
    largest = read_back(quant.save_pytorch_quantization(graph, adds="largest"))
    assert read_back(again) == largest
