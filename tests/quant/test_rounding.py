# SPDX-License-Identifier: Apache-2.0
"""Adaptive rounding and bias correction: better outputs, integers that survive, and bad input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import quant
from scn_fx.errors import CalibrationError, NonFiniteError, OverflowedError
from tests.quant.graphs import GraphBuilder, frame
from tests.quant.improving import (
    FRAMES,
    OTHERS,
    by_name,
    calibrated,
    chain,
    clipped,
    engine_integers,
    float_output,
    parameters,
    same_parameters,
    sqnr,
)

METHODS: list[Callable[..., Any]] = [quant.round_weights, quant.correct_bias]


CLIPPED: dict[str, Callable[[], torch.fx.GraphModule]] = {
    "residual": lambda: clipped(calibrated(), "conv1.0.conv1", "conv1.0.conv2", share=0.4),
    "chain": lambda: clipped(calibrated(chain()), "second", "third"),
}


@pytest.mark.parametrize("kind", CLIPPED)
def test_rounding_brings_frames_that_were_not_used_nearer_to_float(kind: str) -> None:
    graph = CLIPPED[kind]()
    reference = copy.deepcopy(graph)
    before = sqnr(graph, reference, OTHERS)
    report = quant.round_weights(graph, FRAMES, progress=False)
    assert sqnr(graph, reference, OTHERS) > before + 0.4
    assert list(report.layers) == [
        name for name, layer in by_name(graph).items() if layer.kind == "convolution"
    ]
    for layer in report.layers.values():
        assert layer.changed == 0 or not layer.kept  # a bias alone may be better too
        assert layer.kept or layer.sqnr_after > layer.sqnr_before
    assert report.frames == 3


def test_engines_and_a_later_calibration_find_the_chosen_integers() -> None:
    graph = CLIPPED["residual"]()
    before = {name: engine_integers(*stored(graph, name)) for name in parameters(graph)}
    ranges = {name: by_name(graph)[name].weight_dynamic_ranges for name in before}
    floats = parameters(graph)
    report = quant.round_weights(graph, FRAMES, progress=False)
    for name, integers in before.items():
        now = engine_integers(*stored(graph, name))
        assert np.mean(now != integers) == pytest.approx(report.layers[name].changed)
        levels = floats[name][0].double().numpy() * 127 / np.array(ranges[name]).reshape(-1, 1, 1, 1, 1)
        assert np.abs(now - levels).max() < 1.05  # rounded up or down (levels before float16)
        weight = by_name(graph)[name].weight
        assert report.layers[name].kept or torch.equal(weight, weight.half().float())
    assert sum(not layer.kept for layer in report.layers.values()) >= 2
    quant.calibrate(graph, FRAMES, precision="int8", progress=False)
    assert {name: by_name(graph)[name].weight_dynamic_ranges for name in before} == ranges


def stored(graph: torch.fx.GraphModule, name: str) -> tuple[np.ndarray, np.ndarray]:
    layer = by_name(graph)[name]
    return layer.weight.half().numpy(), np.array(layer.weight_dynamic_ranges, np.float32)


def test_the_report_says_what_the_graph_then_does() -> None:
    build, kernel = GraphBuilder(1), (1, 1, 1)
    x = build.conv(build.features, "first", (3, 16), kernel=kernel)
    graph = build.finish(build.conv(x, "second", (16, 4), kernel=kernel))
    clipped(calibrated(graph), "second")
    reference = copy.deepcopy(graph)
    # All sites fit into the limit, so each eighth of all is judged by; the output has them in order.
    exact = torch.cat([float_output(reference, t) for t in FRAMES])[7::8].double()

    def decibels() -> float:
        error = torch.cat([graph(*t) for t in FRAMES])[7::8].double() - exact
        return float(10 * torch.log10(exact.square().sum() / error.square().sum()))

    before = decibels()
    report = quant.round_weights(graph, FRAMES, layers="sec*", progress=False)
    assert list(report.layers) == ["second"]
    layer = report.layers["second"]
    assert (layer.kept, layer.rows) == (False, 900 - 112)
    assert [layer.sqnr_before, layer.sqnr_after] == pytest.approx([before, decibels()], abs=0.05)
    assert torch.equal(by_name(graph)["first"].weight, by_name(reference)["first"].weight)


def test_bias_correction_makes_mean_errors_vanish() -> None:
    graph = clipped(calibrated(chain(relu=False), method="max"), "third", share=0.4)
    reference = copy.deepcopy(graph)

    def mean_error() -> np.ndarray:
        errors = [float_output(reference, t) - graph(*t).float() for t in FRAMES]
        return torch.cat([e.flatten(2) for e in errors], 2).mean((0, 2)).abs().numpy()

    before = mean_error()
    report = quant.correct_bias(graph, FRAMES, progress=False)
    assert (mean_error() < 0.02 * before.max()).all()
    assert report.layers["third"].sqnr_after > report.layers["third"].sqnr_before
    assert report.layers["third"].largest_change > 0


def test_behind_a_relu_only_errors_that_pass_it_count() -> None:
    build = GraphBuilder(2)
    a = build.conv(build.features, "a", (3, 8), relu=False, scale=2.0)
    b = build.conv(build.features, "b", (3, 8))
    graph = calibrated(build.finish(build.dense(build.add(a, b, "sum"))), method="max")
    clipped(graph, "a", "b", share=0.4)
    reference = copy.deepcopy(graph)
    before = sqnr(graph, reference, FRAMES)
    report = quant.correct_bias(graph, FRAMES, progress=False)
    assert sqnr(graph, reference, FRAMES) > before
    assert all(layer.sqnr_after > layer.sqnr_before for layer in report.layers.values())
    corrected = sqnr(graph, reference, FRAMES)
    quant.round_weights(graph, FRAMES, reference=reference, progress=False)
    assert sqnr(graph, reference, FRAMES) > corrected


def test_a_reference_keeps_the_aim_when_weights_have_changed() -> None:
    graph = clipped(calibrated(), "conv1.0.conv1", "conv1.0.conv2", share=0.4)
    original = copy.deepcopy(graph)
    quant.round_weights(graph, FRAMES, progress=False)
    quant.correct_bias(graph, FRAMES, reference=original, progress=False)
    aimed = sqnr(graph, original, FRAMES)
    quant.correct_bias(graph, FRAMES, progress=False)
    assert aimed > sqnr(graph, original, FRAMES)
    with pytest.raises(CalibrationError, match="no graph of the same layers: conv_input"):
        quant.correct_bias(graph, FRAMES, reference=chain(), progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_a_convolution_without_a_bias_gets_one(method: Callable[..., Any]) -> None:
    graph = chain()
    for node in graph.graph.nodes:
        if node.kwargs.get("name") == "second":
            node.update_arg(2, None)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    clipped(calibrated(graph), "second")
    method(graph, FRAMES, progress=False)
    bias = by_name(graph)["second"].bias
    assert bias is not None and torch.equal(bias, bias.half().float()) and bool(bias.any())


def test_channels_that_float16_cannot_round_stay_and_are_named() -> None:
    weight = torch.randn(8, 3, 3, 3, 8, generator=torch.Generator().manual_seed(0))
    weight[2] *= 1e-6
    build = GraphBuilder(1)
    x = build.conv(build.conv(build.features, "first", (3, 8)), "second", (8, 8), weight=weight)
    graph = clipped(calibrated(build.finish(build.dense(x))), "second", share=0.3)
    report = quant.round_weights(graph, FRAMES, layers="second", progress=False)
    assert report.layers["second"].coarse_channels == (2,) and not report.layers["second"].kept
    assert torch.equal(by_name(graph)["second"].weight[2], weight[2].half().float())


@pytest.mark.parametrize("method", METHODS)
def test_bad_input_leaves_the_graph_as_it_was(method: Callable[..., Any]) -> None:
    with pytest.raises(CalibrationError, match=r"no int8 convolution with ranges. Calibrate it first"):
        method(chain(), FRAMES)
    graph = calibrated()
    before = parameters(graph)
    features, indices = frame(0)
    for frames, error, text in (
        ([], CalibrationError, "no frames"),
        (7, CalibrationError, "must be an iterable"),
        ([(features[:, :2], indices)], CalibrationError, "3 channels"),
        ([(features * float("nan"), indices)], NonFiniteError, "NaN"),
    ):
        with pytest.raises(error, match=text):
            method(graph, frames, progress=False)
    with pytest.raises(CalibrationError, match="'conv9' matches none"):
        method(graph, FRAMES, layers=["conv9"])
    with pytest.raises(CalibrationError, match="frames_limit must be at least 1"):
        method(graph, FRAMES, frames_limit=0)
    quant.set_precision(graph, {"extra_conv.0": "fp16"})
    large = [(1000 * features, indices)]  # float16 ends behind the last layer, when others are done
    by_name(graph)["conv_input.0"].set(input_dynamic_range=1e6)
    by_name(graph)["extra_conv.0"].weight.mul_(1e4)
    before["extra_conv.0"] = parameters(graph)["extra_conv.0"]
    with pytest.raises(OverflowedError, match=r"Frame 0 of those used .*extra_conv.0"):
        method(graph, large, outliers="keep", progress=False)
    assert same_parameters(graph, before)


def test_rounding_options_are_checked() -> None:
    graph = calibrated()
    for options in ({"rows_limit": 3}, {"reach": 0}, {"damping": float("nan")}, {"relu_passes": -1}):
        with pytest.raises(CalibrationError, match=f"{next(iter(options))} must be at least"):
            quant.round_weights(graph, FRAMES, **options)  # type: ignore[arg-type]


def test_frames_are_spread_over_a_sequence() -> None:
    graph = calibrated()
    few = quant.correct_bias(copy.deepcopy(graph), [FRAMES[0], FRAMES[2]], progress=False)
    spread = quant.correct_bias(copy.deepcopy(graph), [FRAMES[0], FRAMES[1], FRAMES[2], FRAMES[0]],
                                frames_limit=2, progress=False)  # fmt: skip
    first = quant.correct_bias(graph, iter([FRAMES[0], FRAMES[2], FRAMES[1]]), frames_limit=2, progress=False)
    assert few.layers == spread.layers == first.layers
