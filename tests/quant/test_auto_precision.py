# SPDX-License-Identifier: Apache-2.0
"""Precisions chosen for a budget, against every possible choice evaluated by hand."""

from __future__ import annotations

import itertools
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import quant
from scn_fx.errors import CalibrationError, OverflowedError
from scn_fx.graph import layers
from scn_fx.quant.auto_options import auto_budget
from scn_fx.quant.budget import Budget, parse_budget
from scn_fx.quant.budget_frames import few
from scn_fx.quant.frame_files import FrameFiles
from scn_fx.quant.layer_times import LayerTimes, frame_milliseconds, given_times, measure_times
from scn_fx.quant.precision import default_precisions
from scn_fx.quant.precision_search import Search, spare_time
from tests.quant.graphs import GraphBuilder, frame, residual

FRAMES = [frame(seed) for seed in (3, 4)]
FREE = ("conv1.0.conv1", "conv1.0.conv2", "conv1.0.add", "extra_conv.0")
TIMES = {
    "conv1.0.conv1": (1.0, 2.0),
    "conv1.0.conv2": (1.0, 1.5),
    "conv1.0.add": (0.0, 0.0),
    "extra_conv.0": (2.0, 6.0),
}


def calibrated() -> torch.fx.GraphModule:
    graph = residual(channels=8)
    quant.calibrate(graph, [frame(0), frame(1)], method="max", progress=False)
    return graph


@pytest.fixture(scope="module")
def shared() -> torch.fx.GraphModule:
    return calibrated()


@pytest.fixture
def graph(shared: torch.fx.GraphModule) -> torch.fx.GraphModule:
    quant.set_precision(shared, "default")
    return shared


def choose(graph: torch.fx.GraphModule, budget: Any, **options: Any) -> quant.PrecisionChoice:
    return quant.choose_precision(
        graph, FRAMES, budget=budget, **{"times": TIMES, "progress": False, **options}
    )


@cache
def sqnr(fp16: frozenset[str]) -> float:
    """SQNR in dB of the graph with these layers in float16, by `set_precision` and a run as a whole."""
    graph = calibrated()
    quant.set_precision(graph, dict.fromkeys(sorted(fp16), "fp16"))
    single = calibrated()
    quant.set_precision(single, "fp32")
    signal = noise = 0.0
    for features, indices in FRAMES:
        reference = single(features.half().float(), indices).double()
        signal += float((reference**2).sum())
        noise += float(((reference - graph(features, indices).double()) ** 2).sum())
    return 10 * math.log10(signal / noise)


def every_choice() -> list[frozenset[str]]:
    sizes = range(len(FREE) + 1)
    return [frozenset(names) for n in sizes for names in itertools.combinations(FREE, n)]


def added(fp16: Any) -> float:
    return sum(TIMES[name][1] - TIMES[name][0] for name in fp16)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.95])
def test_an_sqnr_budget_holds_with_no_layer_too_many(graph: torch.fx.GraphModule, place: float) -> None:
    low, high = sqnr(frozenset()), sqnr(frozenset(FREE))
    limit = low - 0.01 + place * (high - low)
    choice = choose(graph, f"sqnr>={limit!r}")
    fp16 = frozenset(choice.fp16)
    assert choice.sqnr_db == pytest.approx(sqnr(fp16), rel=1e-9) and choice.sqnr_db >= limit
    assert choice.int8_sqnr_db == pytest.approx(low, rel=1e-9)
    for name in fp16:
        assert sqnr(fp16 - {name}) < limit or added([name]) == 0
    cheapest = min(added(names) for names in every_choice() if sqnr(names) >= limit)
    assert added(fp16) <= cheapest + 1.0  # greedy, but near: the dearest layer adds 4
    assert choice.chosen_ms == 4.0 + added(fp16) and choice.int8_ms == 4.0 and choice.device == "given"
    now = {layer.name: layer.precision for layer in layers(graph) if layer.name in choice.precisions}
    assert now == choice.precisions
    assert now["conv_input.0"] == "fp16" and {name for name in FREE if now[name] == "fp16"} == fp16
    json.dumps(choice.to_dict(), allow_nan=False)
    assert choice.summary() in str(choice)


@pytest.mark.parametrize("limit", [1.0, 1.2, 1.4, 2.5])
def test_a_time_budget_is_kept_and_used(graph: torch.fx.GraphModule, limit: float) -> None:
    choice = choose(graph, f"time <= {limit}")
    assert choice.chosen_ms <= 4.0 * limit
    affordable = [names for names in every_choice() if 4.0 + added(names) <= 4.0 * limit]
    assert choice.sqnr_db >= sorted(map(sqnr, affordable))[-2] - 1e-6  # the best or the second best
    assert choice.sqnr_db > choice.int8_sqnr_db  # the Add costs nothing


def test_a_metric_budget_counts_what_the_metric_says(graph: torch.fx.GraphModule) -> None:
    single = calibrated()
    quant.set_precision(single, "fp32")
    features, indices = FRAMES[0]
    exact = single(features.half().float(), indices).double()

    def metric(run: Any) -> float:
        return 10.0 - float((run(features, indices).double() - exact).abs().max())

    default = calibrated()
    loss = float((default(features, indices).double() - exact).abs().max())
    choice = choose(graph, f"metric_loss<={loss / 2}", metric=metric)
    found = float((graph(features, indices).double() - exact).abs().max())
    assert choice.metric_loss == pytest.approx(found) and found <= loss / 2
    assert choice.metric == 10.0 and choice.fp16
    assert choose(graph, f"metric_loss<={loss * 1.001}", metric=metric).fp16 == ()
    with pytest.raises(CalibrationError, match=r"metric_loss<=0 cannot be met.*a metric loss of .*in int8"):
        choose(graph, "metric_loss<=0", metric=metric)
    with pytest.raises(CalibrationError, match="needs metric="):
        choose(graph, "metric_loss<=0.1")


def test_a_budget_that_cannot_be_met_says_what_was_reached_and_changes_nothing(
    graph: torch.fx.GraphModule,
) -> None:
    before = [dict(node.kwargs) for node in graph.graph.nodes]
    best, worst = sqnr(frozenset(FREE)), sqnr(frozenset())
    with pytest.raises(CalibrationError) as caught:
        choose(graph, "sqnr>=200")
    assert f"with all 4 free layers in float16 the network reaches SQNR {best:.5g} dB" in str(caught.value)
    assert f"in int8 {worst:.5g} dB" in str(caught.value)
    assert [dict(node.kwargs) for node in graph.graph.nodes] == before


def test_given_precisions_are_kept(graph: torch.fx.GraphModule) -> None:
    given = {"conv1.0.conv1": "fp16", "conv_input.0": "int8"}
    choice = choose(graph, "sqnr>=0", precision=given, times={**TIMES, "conv_input.0": (1.0, 1.0)})
    assert choice.precisions["conv1.0.conv1"] == "fp16" and choice.precisions["conv_input.0"] == "int8"
    rows = {row.name: row for row in choice.layers}
    assert not rows["conv1.0.conv1"].decided and rows["conv1.0.conv1"].sqnr_db is None
    with pytest.raises(CalibrationError, match="No layer is free"):
        choose(graph, "sqnr>=0", precision="fp16")


def test_layers_that_float16_cannot_hold_stay_int8() -> None:
    build = GraphBuilder()
    a = build.conv(build.features, "a", (3, 4), scale=2.5e4)  # its results are beyond 65504
    b = build.conv(a, "b", (4, 4), scale=1e-5)
    c = build.conv(b, "c", (4, 4))
    graph = build.finish(build.dense(c))
    quant.calibrate(graph, FRAMES, method="max", precision={"a": "int8"}, progress=False)
    times = {name: (1.0, 2.0) for name in "abc"}
    options = {"precision": {"a": "int8"}, "times": times}
    choice = choose(graph, "time<=9", **options)
    assert choice.precisions["b"] == "int8" and "b" in choice.left_out and choice.precisions["c"] == "fp16"
    worst = choose(graph, "sqnr>=0", **options).int8_sqnr_db
    choice = choose(graph, f"sqnr>={worst + 0.01}", **options)
    assert choice.left_out == ("b",) and choice.precisions["b"] == "int8" and choice.fp16
    with pytest.raises(CalibrationError, match=r"cannot be met.*\(b cannot be float16"):
        choose(graph, "sqnr>=200", **options)
    with pytest.raises(OverflowedError):
        quant.set_precision(graph, {"b": "fp16"})
        graph(*FRAMES[0])


class _Additive:
    """Stands in for an Evaluator: errors that add up, and calls that are counted."""

    def __init__(self, errors: dict[str, float]):
        self.alone, self.evaluations = errors, 0

    def noise(self, fp16: Any) -> float:
        self.evaluations += 1
        return sum(error for name, error in self.alone.items() if name not in fp16)

    def adopt(self, fp16: Any) -> None:
        pass


@pytest.mark.parametrize("most", [20, 400])
def test_the_number_of_evaluations_is_bounded_and_the_budget_holds(most: int) -> None:
    errors = {f"layer{i}": 1e-4 * (1 + i % 7) for i in range(60)}
    names = list(errors)
    times = LayerTimes(
        "given", dict.fromkeys(names, 1.0), {n: 2.0 + i % 3 for i, n in enumerate(names)}, 60.0
    )
    stand_in: Any = _Additive(errors)
    search = Search(stand_in, times, Budget("sqnr", 25.0), most)
    fp16 = spare_time(search)
    assert search.holds(fp16) and stand_in.evaluations <= most + 3
    left = sum(errors[n] for n in names if n not in fp16)
    assert left <= 10**-2.5
    if most == 400:  # by error per millisecond, and nothing that could be given back
        assert all(left + errors[name] > 10**-2.5 for name in fp16)


def test_layers_that_later_ones_make_needless_are_given_back() -> None:
    """The cheap layer is taken first; the dear one, which the budget needs, would have done alone."""
    stand_in: Any = _Additive({"cheap": 1e-3, "dear": 1e-2})
    times = LayerTimes("given", {"cheap": 1.0, "dear": 1.0}, {"cheap": 2.0, "dear": 21.0}, 2.0)
    search = Search(stand_in, times, Budget("sqnr", 28.0), 50)  # an error of at most 1.58e-3
    assert search.ranked(list(stand_in.alone)) == ["cheap", "dear"]
    assert spare_time(search) == ["dear"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sqnr<=3", "limit from below: write sqnr>=3"),
        ("time>=1.1", "limit from above: write time<=1.1"),
        ("map>=3", "Unknown budget 'map'"),
        ("sqnr", "Expected a budget as 'sqnr>=DB'"),
        ("sqnr>=", "Expected a budget"),
        (7, "Expected a budget"),
        ("sqnr>=x1", "needs a finite number"),
        ("sqnr>=nan", "needs a finite number"),
        ("sqnr=>30", "Expected a budget"),
        ("time<=0.9", "1 or more"),
        ("time<=1.1 dB", "only sqnr is in dB"),
    ],
)
def test_texts_that_are_no_budget(text: Any, match: str) -> None:
    with pytest.raises(CalibrationError, match=match):
        parse_budget(text)


def test_budgets_as_texts() -> None:
    assert parse_budget(" sqnr >= 30 dB ") == Budget("sqnr", 30.0) == parse_budget("sqnr>=30")
    assert parse_budget("time<=1.1x") == Budget("time", 1.1)
    assert parse_budget("metric_loss<=-.5") == Budget("metric_loss", -0.5)
    assert str(Budget("sqnr", 30.0)) == "sqnr>=30" and parse_budget(Budget("time", 2.0)) == Budget(
        "time", 2.0
    )


def test_command_line_options_belong_together() -> None:
    assert auto_budget(("a=fp16", "auto"), "sqnr>=30") == (Budget("sqnr", 30.0), ("a=fp16",))
    assert auto_budget(("a=fp16",), None) == (None, ("a=fp16",))
    for precisions, budget, match in (
        (("auto",), None, "needs --budget"),
        ((), "sqnr>=30", "goes with --precision auto"),
        (("auto",), "metric_loss<=1", "in Python"),
    ):
        with pytest.raises(CalibrationError, match=match):
            auto_budget(precisions, budget)


@pytest.mark.parametrize(
    ("times", "match"),
    [
        ({"a": (1.0, 2.0)}, "times lacks 1 of 2 layers: b"),
        ({"a": (1.0, 2.0), "b": 3.0}, r"times\['b'\] must be two numbers"),
        ({"a": (1.0, -2.0), "b": (1.0, 1.0)}, r"times\['a'\] must be two numbers"),
    ],
)
def test_times_that_are_given(times: Any, match: str) -> None:
    with pytest.raises(CalibrationError, match=match):
        given_times(times, ["a", "b"])


def test_times_are_measured_on_engines_of_the_graph(graph: torch.fx.GraphModule) -> None:
    before = [dict(node.kwargs) for node in graph.graph.nodes]
    base = default_precisions(graph)
    tensors = [FRAMES[0][0].half().float(), FRAMES[0][1]]
    times = measure_times(graph, tensors, base, FREE, "cpu", repeat=1)
    assert set(times.int8) == set(times.fp16) == set(FREE) and times.device == "cpu"
    assert all(times.int8[name] > 0 < times.fp16[name] for name in FREE if name != "conv1.0.add")
    assert times.int8["conv1.0.add"] == times.fp16["conv1.0.add"] == 0.0  # part of the convolution before it
    assert times.total > sum(times.int8.values())
    assert times.frame(["extra_conv.0"]) == pytest.approx(times.total + times.added("extra_conv.0"))
    found = frame_milliseconds(graph, tensors, {"x": base}, "cpu", repeat=1)
    assert found["x"] > 0
    assert [dict(node.kwargs) for node in graph.graph.nodes] == before
    choice = choose(graph, "sqnr>=0", times=None)
    assert choice.device == "cpu" and choice.int8_ms == choice.chosen_ms > 0
    assert choose(graph, "time<=1000", times=None).fp16


def test_choices_are_made_on_few_of_many_frames() -> None:
    frames: Any = [(number,) for number in range(100)]
    found = list(few(frames, 5))
    assert found == [(0,), (25,), (50,), (74,), (99,)] or found == [(0,), (25,), (50,), (75,), (99,)]
    assert few(frames[:5], 5) == frames[:5]
    files = FrameFiles(tuple((Path(f"{number}.bin"),) for number in range(40)))
    chosen = few(files)
    assert isinstance(chosen, FrameFiles) and len(chosen) == 16
    assert chosen.files[0] == files.files[0] and chosen.files[-1] == files.files[-1]
