# SPDX-License-Identifier: Apache-2.0
"""Cross-layer equalisation: which values it may scale, what stays equal, what it gains, and bad input."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.fx import GraphModule

import quant
from scn_fx.errors import CalibrationError, NonFiniteError
from scn_fx.quant.channel_factors import best_factors
from scn_fx.quant.channel_statistics import ChannelStatistics
from scn_fx.quant.interpreter import FloatInterpreter
from scn_fx.quant.scale_groups import scale_groups
from tests.quant.graphs import GraphBuilder, frame, residual
from tests.quant.improving import (
    FRAMES,
    OTHERS,
    by_name,
    calibrated,
    chain,
    float_output,
    parameters,
    same_parameters,
    sqnr,
)


def uneven(graph: GraphModule) -> GraphModule:
    """The graph with output channels of its producers, and readers, scaled apart: the same float network."""
    rng = np.random.default_rng(5)
    for group in scale_groups(graph):
        factors = torch.from_numpy(np.exp2(rng.integers(-4, 3, group.channels)).astype(np.float32))
        for layer in group.producers:
            layer.weight.div_(factors.reshape(-1, 1, 1, 1, 1))
            if layer.bias is not None:
                layer.bias.div_(factors)
        for layer in group.consumers:
            layer.weight.mul_(factors)
    return graph


def float_value(graph: GraphModule, node: torch.fx.Node, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The float32 value of one node."""
    found: dict[torch.fx.Node, torch.Tensor] = {}
    with torch.no_grad():
        FloatInterpreter(graph, found.__setitem__).run(tensors[0].half().float(), tensors[1])
    return found[node]


def names(graph: GraphModule) -> list[tuple[list[str], list[str], list[str]]]:
    return [
        tuple([layer.name for layer in part] for part in (g.producers, g.consumers, g.additions))  # type: ignore[misc]
        for g in scale_groups(graph)
    ]


def test_groups_are_values_that_convolutions_and_adds_alone_read() -> None:
    assert names(chain()) == [(["first"], ["second"], []), (["second"], ["third"], [])]
    stream = (["conv_input.0", "conv1.0.conv2"], ["conv1.0.conv1", "extra_conv.0"], ["conv1.0.add"])
    assert sorted(names(residual())) == sorted([stream, (["conv1.0.conv1"], ["conv1.0.conv2"], [])])


def test_values_that_leave_the_graph_or_enter_it_are_fixed() -> None:
    build = GraphBuilder()
    x = build.conv(build.features, "a", (3, 3), relu=False)
    y = build.add(x, build.features, "with_input")  # ties `a` to the input
    z = build.relu(build.conv(y, "b", (3, 4), relu=False), "relu")
    seen = build.conv(z, "c", (4, 4))
    graph = build.finish((build.dense(build.conv(z, "d", (4, 4))), build.dense(seen, "other")))
    assert names(graph) == [(["b"], ["c", "d"], [])]


@pytest.mark.parametrize("build", [chain, residual], ids=["chain", "residual"])
def test_the_float_network_stays_the_same(build: type) -> None:
    graph = uneven(build())
    original = copy.deepcopy(graph)
    quant.equalize(graph, FRAMES, progress=False)
    for tensors in (*FRAMES, *OTHERS):
        # Weights are rounded to float16 up to twice: 2^-11 of each product.
        torch.testing.assert_close(
            float_output(graph, tensors), float_output(original, tensors), rtol=4e-3, atol=4e-3
        )


@pytest.mark.parametrize("build", [chain, residual], ids=["chain", "residual"])
def test_uneven_channels_lose_less_after_it(build: type) -> None:
    plain, graph = calibrated(uneven(build())), uneven(build())
    reference = copy.deepcopy(graph)
    report = quant.equalize(graph, FRAMES, progress=False)
    assert all(group.gain > 3 and group.smallest < 1 < group.largest for group in report.groups)
    assert sqnr(calibrated(graph), reference, OTHERS) > sqnr(plain, reference, OTHERS) + 3
    # As good as channels that were even from the start; frames so small leave the ranges little headroom.
    assert sqnr(graph, reference, FRAMES) > sqnr(calibrated(build()), reference, FRAMES) - 1


def test_the_factors_are_a_minimum_of_the_noise_as_it_is_defined() -> None:
    graph = uneven(chain())
    (_, group), statistics = scale_groups(graph), ChannelStatistics(scale_groups(graph))
    with torch.no_grad():
        for features, indices in FRAMES:
            FloatInterpreter(graph, statistics.observe).run(features.half().float(), indices)
    factors, gain = best_factors(group, statistics)
    assert float(factors.log().mean()) == pytest.approx(0, abs=1e-9)
    reader = group.consumers[0]
    weight = reader.weight.double().numpy()[:, 0, 0, 0, :]
    value = reader.inputs[0]
    ranges, energy = statistics.ranges(value).numpy(), statistics.energy(value).numpy()
    rows = torch.cat([float_value(graph, value, tensors) for tensors in FRAMES]).double().numpy()
    np.testing.assert_allclose(energy, (rows**2).mean(0))
    share = (rows != 0).mean(0)
    ranges, energy = np.maximum(ranges, 1e-4 * ranges.max()), np.maximum(energy, 1e-8 * energy.max())

    def noise(s: np.ndarray) -> float:
        rounding = (ranges / s).max() ** 2 * (s**2 * share * (weight**2).sum(0)).sum()
        return float(rounding + ((np.abs(weight) * s).max(1) ** 2).sum() * (energy / s**2).sum())

    best = noise(factors.numpy())
    assert 10 * np.log10(noise(np.ones(group.channels)) / best) == pytest.approx(gain, abs=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(200):
        assert noise(factors.numpy() * np.exp(0.1 * rng.standard_normal(group.channels))) > 0.995 * best


def test_ranges_of_a_channel_leave_out_what_the_relu_removes() -> None:
    graph = residual()
    statistics = ChannelStatistics(scale_groups(graph))
    add = by_name(graph)["conv1.0.add"]
    values = torch.tensor([[-100.0, 1.0], [2.0, -1.0]]).repeat(50, 1)
    statistics.observe(add.inputs[0], values)
    assert statistics.ranges(add.inputs[0]).tolist() == pytest.approx([100, 1])
    assert statistics.ranges(add.inputs[0], -4.0).tolist() == pytest.approx([4, 1])


def test_a_calibrated_graph_must_be_calibrated_again() -> None:
    graph = calibrated()
    quant.equalize(graph, FRAMES, progress=False)
    for layer in by_name(graph).values():
        if layer.kind in ("convolution", "add"):
            assert layer.precision == layer.output_precision == "fp32"
    assert by_name(graph)["conv1.0.conv1"].input_dynamic_range is None
    assert by_name(graph)["conv1.0.add"].input1_dynamic_range is None
    assert graph.meta["scn_fx"]["calibration"] is None
    with pytest.raises(CalibrationError, match="no ranges"):
        quant.set_precision(graph, "int8")
    calibrated(graph)


def test_dead_channels_and_dead_readers_do_no_harm() -> None:
    graph = chain()
    by_name(graph)["first"].weight[3].zero_()
    by_name(graph)["first"].bias[3] = -1.0
    by_name(graph)["third"].weight.zero_()
    by_name(graph)["third"].bias.zero_()
    report = quant.equalize(graph, FRAMES, progress=False)
    assert all(np.isfinite([g.smallest, g.largest, g.gain]).all() for g in report.groups)
    assert all(bool(weight.isfinite().all()) for weight, _ in parameters(graph).values())


def test_bad_input_leaves_the_graph_as_it_was() -> None:
    build = GraphBuilder()
    with pytest.raises(CalibrationError, match=r"No value of the graph can be scaled.*Leave this step out"):
        quant.equalize(build.finish(build.dense(build.conv(build.features, "only", (3, 4)))), FRAMES)
    graph = calibrated()
    before = parameters(graph)
    features, indices = frame(0)
    with pytest.raises(CalibrationError, match="no frames"):
        quant.equalize(graph, [], progress=False)
    with pytest.raises(NonFiniteError, match="NaN"):
        quant.equalize(graph, [(features / 0, indices)], progress=False)
    assert same_parameters(graph, before)
    assert by_name(graph)["conv1.0.conv1"].input_dynamic_range is not None
