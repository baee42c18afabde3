# SPDX-License-Identifier: Apache-2.0
"""Each layer alone in int8, against graphs whose precisions are set by hand and run as a whole."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

import quant
from scn_fx.errors import CalibrationError, NonFiniteError, OverflowedError
from scn_fx.graph import operator_name
from scn_fx.quant.mixed import FLOAT, MixedRunner, Noise, engine_forms
from scn_fx.quant.precision import default_precisions
from scn_fx.quant.ranges import quantizable
from tests.quant.graphs import GraphBuilder, frame, residual

FRAMES = [frame(seed) for seed in (3, 4)]
NAMES = ["conv_input.0", "conv1.0.conv1", "conv1.0.conv2", "conv1.0.add", "extra_conv.0"]


def calibrated(channels: int = 4) -> torch.fx.GraphModule:
    graph = residual(channels=channels)
    quant.calibrate(graph, [frame(0), frame(1)], method="max", progress=False)
    return graph


@pytest.fixture(scope="module")
def graph() -> torch.fx.GraphModule:
    return calibrated()


def kwargs_of(graph: torch.fx.GraphModule) -> list[dict[str, Any]]:
    return [dict(node.kwargs) for node in graph.graph.nodes]


def by_hand(forms: dict[str, tuple[str, str]], number: int) -> np.ndarray:
    """The result of a frame by a fresh graph whose nodes are set one by one; float64."""
    graph = calibrated()
    for layer in quantizable(graph):
        precision, output = forms.get(layer.name, FLOAT)
        layer.set(precision=precision, output_precision=output)
    features, indices = FRAMES[number]
    return graph(features.half().float(), indices).double().numpy()


def sqnr(forms: dict[str, tuple[str, str]]) -> float:
    pairs = [(by_hand({}, n), by_hand(forms, n)) for n in range(len(FRAMES))]
    signal = sum((a**2).sum() for a, _ in pairs)
    return 10 * math.log10(signal / sum(((a - b) ** 2).sum() for a, b in pairs))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_every_layer_alone_is_what_a_graph_set_by_hand_gives(
    graph: torch.fx.GraphModule, precision: str
) -> None:
    before = kwargs_of(graph)
    report = quant.sensitivity(graph, iter(FRAMES), precision=precision, progress=False)
    assert kwargs_of(graph) == before
    form = (precision, precision)
    found = {row.name: row.sqnr_db for row in report.layers}
    assert found == pytest.approx({name: sqnr({name: form}) for name in NAMES}, rel=1e-9)
    assert report.together_sqnr_db == pytest.approx(sqnr(dict.fromkeys(NAMES, form)), rel=1e-9)
    dbs = [row.sqnr_db for row in report.layers]
    assert dbs == sorted(dbs) and report.frames == 2 and report.metric is None
    assert [row.noise for row in report.layers] == pytest.approx([10 ** (-db / 10) for db in dbs])
    json.dumps(report.to_dict(), allow_nan=False)
    assert str(report).splitlines()[1].startswith(report.layers[0].name)


def test_only_what_depends_on_a_layer_runs_again(
    graph: torch.fx.GraphModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: Counter[str] = Counter()
    run_node = MixedRunner.run_node

    def counted(self: MixedRunner, n: torch.fx.Node) -> Any:
        ran[operator_name(n) or n.op] += 1
        return run_node(self, n)

    monkeypatch.setattr(MixedRunner, "run_node", counted)
    quant.sensitivity(graph, FRAMES[:1], progress=False)
    # Convolutions: 4 in float32; then 4, 3, 2, 1 (conv_input ... extra_conv), 1 for the Add, and 4 together.
    assert ran["convolution"] == 4 + (4 + 3 + 2 + 1) + 1 + 4
    assert ran["subm_map"] == 1


def test_a_metric_ranks_and_is_given_the_network_in_each_form(graph: torch.fx.GraphModule) -> None:
    exact = by_hand({}, 0)

    def metric(run: Any) -> float:
        features, indices = FRAMES[0]
        return -float(np.abs(run(features, indices).double().numpy() - exact).max())

    report = quant.sensitivity(graph, FRAMES, metric=metric, layers=["conv1.*"], progress=False)
    losses = {row.name: row.metric_loss for row in report.layers}
    wanted = {
        name: np.abs(by_hand({name: ("int8", "int8")}, 0) - exact).max() for name in NAMES if "conv1." in name
    }
    assert losses == pytest.approx(wanted) and report.metric == 0.0
    assert [row.metric_loss for row in report.layers] == sorted(wanted.values(), reverse=True)
    assert report.together_metric_loss is not None and "metric loss" in str(report)


@pytest.mark.parametrize("value", [float("nan"), None, "0.5", True])
def test_a_metric_must_give_a_number(graph: torch.fx.GraphModule, value: Any) -> None:
    with pytest.raises(CalibrationError, match="metric must return a finite number"):
        quant.sensitivity(graph, FRAMES[:1], metric=lambda run: value, progress=False)


def test_what_cannot_be_analysed(graph: torch.fx.GraphModule) -> None:
    with pytest.raises(CalibrationError, match="There are no frames"):
        quant.sensitivity(graph, [], progress=False)
    with pytest.raises(CalibrationError, match=r"'head.\*' matches none of the 5 layers: conv_input.0"):
        quant.sensitivity(graph, FRAMES, layers="head.*", progress=False)
    with pytest.raises(CalibrationError, match="Unknown precision 'fp32'; expected one of int8, fp16"):
        quant.sensitivity(graph, FRAMES, precision="fp32", progress=False)
    with pytest.raises(CalibrationError, match=r"conv_input.0 has no ranges.*Calibrate the graph first"):
        quant.sensitivity(residual(), FRAMES, progress=False)
    features, indices = FRAMES[0]
    with pytest.raises(NonFiniteError, match=r"Frame 1 .*NaN"):
        quant.sensitivity(graph, [FRAMES[0], (features * torch.nan, indices)], progress=False)
    with pytest.raises(OverflowedError, match=r"Frame 0 .*conv_input.0"):
        big = calibrated()
        big.conv_input_0_weight.mul_(3e4)  # type: ignore[operator, union-attr]
        quant.sensitivity(big, FRAMES, precision="fp16", layers="conv_input.0", progress=False)


def test_layers_that_could_overflow_int32_are_left_out_with_a_reason() -> None:
    build = GraphBuilder()
    x = build.conv(build.features, "a", (3, 1), kernel=(1, 1, 1))
    y = build.conv(x, "b", (1, 1), kernel=(1, 1, 1))
    graph = build.finish(build.dense(build.add(x, y, "s")))
    quant.calibrate(graph, FRAMES, method="max", progress=False)
    wide = torch.ones(1, 1, 1, 1, 131_072)
    graph.b_weight = wide
    report_layers, left_out = quant.layer_sensitivity._tried(graph, None, "int8")
    assert list(report_layers) == ["a", "s"] and "131072 products" in left_out["b"]


def test_several_outputs_count_by_the_worst() -> None:
    build = GraphBuilder()
    a = build.conv(build.features, "a", (3, 4))
    b = build.conv(a, "b", (4, 4))
    graph = build.finish((build.dense(a), (b, build.indices)))
    quant.calibrate(graph, FRAMES, method="max", progress=False)
    rows = {row.name: row for row in quant.sensitivity(graph, FRAMES, progress=False).layers}
    noise = Noise()
    runner = MixedRunner(graph)
    for features, indices in FRAMES:
        tensors = [features.half().float(), indices]
        noise.add(runner.values(tensors, {}).result, runner.values(tensors, {"b": ("int8", "int8")}).result)
    assert rows["b"].noise == noise.ratio > 0
    alone = Noise()
    alone.add((torch.tensor([2.0]), torch.tensor([1.0])), (torch.tensor([2.0]), torch.tensor([0.5])))
    assert alone.ratio == 0.25


def test_mixed_forms_are_the_graph_itself_bit_for_bit(graph: torch.fx.GraphModule) -> None:
    """With an engine's forms the runner gives what the graph with these precisions gives, reuse or not."""
    chosen = {**default_precisions(graph), "conv1.0.conv2": "fp16"}
    forms = engine_forms(graph, chosen)
    runner = MixedRunner(graph)
    tensors = [FRAMES[0][0].half().float(), FRAMES[0][1]]
    other = calibrated()
    quant.set_precision(other, {"conv1.0.conv2": "fp16"})
    expected = other(*tensors)
    first = runner.values(tensors, engine_forms(graph, default_precisions(graph)))
    for result in (runner.values(tensors, forms), runner.values(tensors, forms, first)):
        assert result.result.dtype == torch.float16 and torch.equal(result.result, expected)
    assert first.size > 0
