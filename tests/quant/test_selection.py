# SPDX-License-Identifier: Apache-2.0
"""Ranges that know their consumers: what an Add before a ReLU needs, and what it gains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quant
from scn_fx.quant.consumers import effective_operands, rectified_adds
from scn_fx.quant.interpreter import FloatInterpreter
from scn_fx.quant.pair_search import PairError
from scn_fx.quant.pairs import PairHistogram
from tests.quant.graphs import GraphBuilder, frame, residual

FRAMES = [frame(seed) for seed in range(3)]
ADD = torch.ops.scn_fx.add.default

numbers = st.floats(-1e3, 1e3, width=32)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20))
def test_the_effective_parts_have_the_same_rectified_sum(pairs: list[tuple[float, float]]) -> None:
    a, b = torch.tensor(pairs, dtype=torch.float32).T
    part_a, part_b = effective_operands(a, b)
    wanted = (a + b).relu()
    for first, second in ((part_a, part_b), (part_a, b), (a, part_b)):
        assert torch.equal((first + second).relu(), wanted)


def rectified(a: torch.Tensor, b: torch.Tensor, ranges: tuple[float, float]) -> torch.Tensor:
    """The int8 Add and its ReLU, as the graph's operator computes them."""
    return ADD(
        a[:, None], b[:, None], name="add", activation="ReLU", precision="int8", output_precision="int8",
        input0_dynamic_range=ranges[0], input1_dynamic_range=ranges[1],
    )[:, 0]  # fmt: skip


@given(
    st.floats(2.0**-20, 2.0**20, width=32),
    st.floats(1, 2),
    st.lists(st.tuples(st.floats(-8, 1), st.floats(-8, 1)), min_size=1, max_size=30),
)
def test_clipping_below_what_the_other_can_reach_changes_no_sum(
    reach: float, wider: float, pairs: list[tuple[float, float]]
) -> None:
    # numerics.md: if neither operand exceeds r_a, and r_b is at most 2 r_a, a may be clipped at -r_a.
    a, b = (torch.tensor(pairs) * reach).float().T
    ranges = (reach, float(np.float32(min(wider, 1.9999) * reach)))
    step = ranges[0] / 127
    for each in (a, b):
        each.clamp_(max=reach)
    below = a < -reach
    unclipped = (torch.round(a / step) * step + rectified(b, torch.zeros_like(b), ranges)).relu()
    assert (rectified(a, b, ranges)[below] == 0).all()
    assert (unclipped[below] <= step).all()


def drawn(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Operands of a residual Add: a branch of both signs, and the ReLU's output beside it."""
    rng = np.random.default_rng(2)
    size = 60_000
    a, b = {
        "normal": lambda: (3 * rng.standard_normal(size), np.maximum(rng.standard_normal(size), 0)),
        "sunken": lambda: (
            np.where(rng.random(size) < 0.5, -137 * rng.random(size) ** 4, 2 * rng.standard_normal(size)),
            3 * np.maximum(rng.standard_normal(size), 0),
        ),
        "heavy": lambda: (rng.standard_t(3, size), np.abs(rng.standard_normal(size)) ** 3),
    }[kind]()
    return torch.from_numpy(a).float(), torch.from_numpy(b).float()


def true_error(a: torch.Tensor, b: torch.Tensor, ranges: tuple[float, float]) -> float:
    return float((rectified(a, b, ranges) - (a + b).relu()).double().square().sum())


@pytest.mark.parametrize("kind", ["normal", "sunken", "heavy"])
def test_both_ranges_of_an_add_are_chosen_by_the_error_behind_its_relu(kind: str) -> None:
    a, b = drawn(kind)
    pairs = PairHistogram()
    pairs.collect(a, b)
    error = PairError(pairs)
    largest = tuple(float(part.abs().max()) for part in effective_operands(a, b))
    grid = [
        (x * largest[0], y * largest[1]) for x in np.geomspace(0.1, 1, 5) for y in np.geomspace(0.1, 1, 5)
    ]
    for ranges in grid[::3]:
        assert error(ranges) == pytest.approx(true_error(a, b, ranges), rel=0.25)
    best = error.best(largest, largest)
    assert true_error(a, b, best) <= 1.03 * min(true_error(a, b, ranges) for ranges in grid)
    assert all(0 < found <= most * (1 + 1e-9) for found, most in zip(best, largest, strict=True))
    kept = error.best((largest[0], best[1]), largest, fixed=(True, False))
    assert kept[0] == largest[0] and error(best) <= error(kept) <= error(largest)


def test_what_clipping_drives_below_zero_costs_the_sum_and_not_the_clipping() -> None:
    a, b = torch.linspace(9.1, 9.9, 1000), torch.linspace(-8.9, -8.1, 1000).flip(0)  # sums from 0.2 to 1.8
    pairs = PairHistogram()
    pairs.collect(a, b)
    error = PairError(pairs)
    for ranges in ((5.0, 9.0), (1.0, 9.0), (9.9, 4.0)):
        assert error(ranges) == pytest.approx(true_error(a, b, ranges), rel=0.25)
    assert error((5.0, 9.0)) == pytest.approx(float((a + b).square().sum()), rel=0.25)  # all sums are lost


def test_adds_before_a_relu_are_found() -> None:
    build = GraphBuilder()
    x = build.conv(build.features, "input", (3, 4))
    fused = build.add(x, x, "fused")
    plain = build.add(fused, x, "plain", relu=False)
    before = build.add(plain, x, "before", relu=False)
    both = build.add(build.relu(before, "relu"), x, "both", relu=False)
    graph = build.finish(build.dense(build.add(build.relu(both, "relu2"), both, "end", relu=False)))
    assert list(rectified_adds(graph).values()) == ["fused", "before"]


def sunken(kernel: tuple[int, int, int] = (3, 3, 3)) -> torch.fx.GraphModule:
    """A residual block whose branch lies deep below zero in half of its channels."""
    build = GraphBuilder(3)
    x = build.conv(build.features, "conv_input.0", (3, 8))
    y = build.conv(x, "conv1.0.conv1", (8, 8))
    y = build.conv(y, "conv1.0.conv2", (8, 8), relu=False, kernel=kernel)
    x = build.add(y, x, "conv1.0.add")
    graph = build.finish(build.dense(build.conv(x, "extra_conv.0", (8, 8))))
    graph.conv1_0_conv2_bias[::2] -= 60.0
    return graph


def decibels(graph: torch.fx.GraphModule, tensors: tuple[torch.Tensor, ...]) -> float:
    """Signal to noise of the int8 graph's map."""
    wanted = FloatInterpreter(graph, lambda n, v: None).run(*tensors).double()
    error = graph(*tensors).double() - wanted
    return float(10 * torch.log10(wanted.square().sum() / error.square().sum()))


@pytest.mark.parametrize("method", quant.METHODS)
def test_an_add_does_not_spend_its_range_on_what_the_relu_removes(method: str) -> None:
    graph = sunken()
    ignoring = quant.calibrate(graph, FRAMES, method=method, consumers="ignore")
    before = decibels(graph, FRAMES[0])
    aware = quant.calibrate(graph, FRAMES, method=method)
    assert ignoring.largest == aware.largest and aware.largest["conv1.0.add"][0] > 55
    assert aware.ranges["conv1.0.add"].inputs[0] < 0.5 * ignoring.ranges["conv1.0.add"].inputs[0]
    assert decibels(graph, FRAMES[0]) > before + 6
    others = [name for name in aware.ranges if name != "conv1.0.add"]
    assert all(aware.ranges[name] == ignoring.ranges[name] for name in others)


@pytest.mark.parametrize("method", quant.METHODS)
def test_an_operand_that_others_read_as_well_keeps_their_range(method: str) -> None:
    ranges = quant.calibrate(residual(), FRAMES, method=method).ranges
    assert ranges["conv1.0.add"].inputs[1] == ranges["conv1.0.conv1"].inputs[0]


def test_a_shared_operand_gets_its_own_range_where_that_pays() -> None:
    build = GraphBuilder(3)
    x = build.conv(build.features, "conv_input.0", (3, 8))
    y = build.conv(x, "branch", (8, 8), relu=False)
    both = build.add(y, x, "add")
    graph = build.finish(build.dense(build.add(both, build.conv(y, "reader", (8, 8)), "end")))
    graph.branch_bias[::2] -= 60.0
    result = quant.calibrate(graph, FRAMES)
    assert result.ranges["add"].inputs[0] < 0.5 * result.ranges["reader"].inputs[0]


@pytest.mark.parametrize("method", quant.METHODS)
def test_an_add_that_lets_nothing_through_keeps_the_ranges_of_its_operands(method: str) -> None:
    build = GraphBuilder(3)
    x = build.conv(build.features, "conv_input.0", (3, 4), relu=False)
    y = build.conv(x, "branch", (4, 4), relu=False)
    graph = build.finish(build.dense(build.add(y, y, "add")))
    graph.branch_bias.fill_(-1e3)
    inputs = quant.calibrate(graph, FRAMES, method=method).ranges["add"].inputs
    assert inputs[0] == inputs[1] and 900 < inputs[0] < 1100
