# SPDX-License-Identifier: Apache-2.0
"""Ranges of weights by the error at a layer's output, against a direct computation over all rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import quant
from scn_fx.errors import CalibrationError
from scn_fx.graph import Layer, layers
from scn_fx.quant.interpreter import FloatInterpreter
from scn_fx.quant.weight_levels import LEVELS, LevelErrors, RoundedWeight, ranges_at
from tests.quant.graphs import residual
from tests.quant.improving import FRAMES, OTHERS, by_name, chain, engine_integers, sqnr


def rows_of(graph: torch.fx.GraphModule, tensors: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
    """What each convolution's weights meet in one frame, [M, K * in]."""
    found: dict[str, np.ndarray] = {}
    names = {layer.node: layer.name for layer in layers(graph)}

    def observe(node: Any, features: torch.Tensor, kernel_map: torch.Tensor) -> None:
        values, rows = features.double().numpy(), kernel_map.numpy()
        met = np.where(rows[..., None] < 0, 0.0, values[np.maximum(rows, 0)])
        found[names[node]] = met.reshape(len(rows), -1)

    features, *rest = tensors
    runner = FloatInterpreter(graph, lambda node, value: None, observe_convolution=observe)
    with torch.no_grad():
        runner.run(features.half().float(), *rest)
    return found


def convolutions(graph: torch.fx.GraphModule) -> list[Layer]:
    return [layer for layer in layers(graph) if layer.kind == "convolution"]


def test_each_channel_takes_the_level_of_least_error_at_the_output() -> None:
    graph = residual(channels=8)
    quant.calibrate(graph, FRAMES, precision="int8", progress=False)
    met = [rows_of(graph, tensors) for tensors in FRAMES]
    chosen = set()
    for layer in convolutions(graph):
        weight = layer.weight.half().float().numpy()
        flat, largest = weight.reshape(len(weight), -1).astype(np.float64), np.abs(weight).max((1, 2, 3, 4))
        errors = []
        for level in range(127, 95, -1):
            ranges = (largest.astype(np.float64) * 127 / level).astype(np.float32)
            rounded = engine_integers(weight, ranges).reshape(flat.shape) * (ranges / 127.0)[:, None]
            shares = [
                np.square(frame[layer.name] @ (rounded - flat).T).sum(0)
                / np.square(frame[layer.name] @ flat.T).sum()
                for frame in met
            ]
            errors.append(np.sum(shares, axis=0))
        best = 127 - np.argmin(errors, axis=0)
        found = np.array(layer.weight_dynamic_ranges, np.float32)
        assert np.array_equal(found, (largest.astype(np.float64) * 127 / best).astype(np.float32))
        assert (found >= largest).all()  # nothing is clipped
        chosen |= set(best.tolist())
    assert len(chosen) > 5


def test_it_loses_less_than_the_largest_weights_on_other_frames() -> None:
    reference = chain()
    quality = {}
    for weights in quant.WEIGHTS:
        graph = copy.deepcopy(reference)
        quant.calibrate(graph, FRAMES, weights=weights, precision="int8", progress=False)
        quality[weights] = sqnr(graph, reference, OTHERS)
    assert quality["output"] > quality["max"]


def test_the_method_max_means_weights_too() -> None:
    ranges = {}
    for weights in (None, *quant.WEIGHTS):
        graph = residual()
        quant.calibrate(graph, FRAMES, method="max", weights=weights, progress=False)
        ranges[weights] = [layer.argument("weight_dynamic_ranges") for layer in convolutions(graph)]
    assert ranges[None] == ranges["max"] != ranges["output"]


def test_errors_are_zero_where_nothing_is_rounded_and_without_a_signal() -> None:
    weight = torch.zeros(2, 1, 1, 1, 3)
    weight[0, ..., 0] = 0.25  # one weight alone: every level holds it exactly (to float32)
    rows = torch.arange(4, dtype=torch.int32)[:, None]
    errors = RoundedWeight(weight).errors(torch.ones(4, 3), rows)
    assert errors.shape == (2, len(LEVELS)) and (errors == 0).all()
    assert (RoundedWeight(weight).errors(torch.zeros(4, 3), rows) == 0).all()
    weight[1] = 1e-3
    weight[1, ..., 2] = 0.7
    kept, anew = (RoundedWeight(weight, keep).errors(torch.randn(4, 3), rows) > 0 for keep in (True, False))
    assert kept[1].any() and anew[1].any() and not kept[0].any()
    best = LevelErrors(2)
    assert best.best().tolist() == [127, 127]  # of equal errors the largest level


def test_large_weights_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, features = torch.randn(6, 1, 1, 1, 5, generator=generator), torch.randn(7, 5, generator=generator)
    rows = torch.arange(7, dtype=torch.int32)[:, None]
    whole = RoundedWeight(weight).errors(features, rows)
    monkeypatch.setattr("scn_fx.quant.weight_levels._BLOCK", 5 * len(LEVELS) * 2)
    assert np.allclose(RoundedWeight(weight, keep=False).errors(features, rows), whole, rtol=1e-4)


def test_ranges_hold_the_largest_weight_exactly() -> None:
    largest = torch.tensor([0.1, 3.3, 65504.0]).half().float()
    for level in LEVELS:
        ranges = ranges_at(largest, level)
        assert (engine_integers(largest.numpy(), ranges.numpy()) == level).all()


def test_a_cache_keeps_the_errors(tmp_path: Any) -> None:
    graph, cache = residual(channels=8), tmp_path / "c.json"
    quant.calibrate(graph, FRAMES, method="max", cache=cache, progress=False)
    again = residual(channels=8)
    quant.reselect(again, cache, method="mse")
    quant.calibrate(graph, FRAMES, progress=False)
    for layer in convolutions(graph):
        assert by_name(again)[layer.name].weight_dynamic_ranges == layer.weight_dynamic_ranges
    quant.reselect(again, cache, method="mse", weights="max")
    first = by_name(again)["conv_input.0"]
    assert first.weight_dynamic_ranges == first.weight.half().float().abs().amax((1, 2, 3, 4)).tolist()


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(CalibrationError, match="weights='mean'; expected one of output, max, or None"):
        quant.calibrate(residual(), FRAMES, weights="mean")
    with pytest.raises(ValueError, match="another shape or type"):
        LevelErrors.from_state({"sums": np.zeros((2, 3), np.int64)})
