# SPDX-License-Identifier: Apache-2.0
"""`quant.quantize`: the steps in their order, in one call."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import quant
from scn_fx.errors import CalibrationError, NonFiniteError
from scn_fx.quant.ranges import quantizable, read_ranges
from tests.quant.graphs import residual
from tests.quant.improving import FRAMES, OTHERS, parameters, same_parameters, sqnr


def _ranges(graph: torch.fx.GraphModule) -> dict[str, Any]:
    return {layer.name: read_ranges(layer) for layer in quantizable(graph)}


def test_it_is_the_steps_one_after_the_other() -> None:
    graph, by_hand = residual(1), residual(1)
    result = quant.quantize(graph, FRAMES, improve=("round", "bias", "equalize"), progress=False)
    quant.equalize(by_hand, FRAMES, progress=False)
    scaled = copy.deepcopy(by_hand)
    quant.calibrate(by_hand, FRAMES, progress=False)
    quant.correct_bias(by_hand, FRAMES, reference=scaled, progress=False)
    quant.round_weights(by_hand, FRAMES, reference=scaled, progress=False)
    assert same_parameters(graph, parameters(by_hand))
    assert _ranges(graph) == _ranges(by_hand)
    assert torch.equal(graph(*OTHERS[0]), by_hand(*OTHERS[0]))
    assert [layer.precision for layer in quantizable(graph)].count("int8") == 4
    assert result.equalization is not None
    assert result.bias is not None
    assert result.rounding is not None
    assert set(result.rounding.layers) <= set(result.calibration.ranges)


def test_without_improvements_it_is_calibrate() -> None:
    graph, by_hand = residual(2), residual(2)
    before = parameters(graph)
    result = quant.quantize(graph, FRAMES, improve=(), method="max", progress=False)
    quant.calibrate(by_hand, FRAMES, method="max", progress=False)
    assert _ranges(graph) == _ranges(by_hand)
    assert same_parameters(graph, before)
    assert (result.equalization, result.bias, result.rounding) == (None, None, None)
    assert result.calibration.method == "max"


def test_an_iterator_is_read_once_and_counted_whole() -> None:
    graph, listed = residual(3), residual(3)
    result = quant.quantize(graph, iter(FRAMES), frames_limit=2, progress=False)
    assert result.calibration.frames == len(FRAMES)
    assert result.rounding is not None
    assert result.rounding.frames == 2
    quant.equalize(listed, FRAMES[:2], progress=False)
    quant.calibrate(listed, FRAMES, progress=False)
    assert _ranges(graph) == _ranges(listed)


def test_a_cache_carries_everything_to_a_fresh_capture(tmp_path: Path) -> None:
    graph, fresh = residual(4), residual(4)
    reference = copy.deepcopy(graph)
    quant.quantize(graph, FRAMES, cache=tmp_path / "c.json", progress=False)
    quant.load_cache(fresh, tmp_path / "c.json")
    assert torch.equal(fresh(*OTHERS[0]), graph(*OTHERS[0]))
    assert sqnr(graph, reference, OTHERS) > 20


def test_what_fails_changes_nothing() -> None:
    graph = residual(5)
    before, ranges = parameters(graph), _ranges(graph)
    bad = [*FRAMES, (FRAMES[0][0] * float("nan"), FRAMES[0][1])]
    with pytest.raises(NonFiniteError, match="Frame 3"):
        quant.quantize(graph, iter(bad), frames_limit=2, progress=False)
    with pytest.raises(CalibrationError, match=r"equalize, bias, round, got \('rund',\)"):
        quant.quantize(graph, FRAMES, improve=("rund",))
    with pytest.raises(CalibrationError, match="sequence of equalize, bias, round, got 'round'"):
        quant.quantize(graph, FRAMES, improve="round")
    with pytest.raises(CalibrationError, match="frames"):
        quant.quantize(graph, 5)  # type: ignore[arg-type]
    assert same_parameters(graph, before)
    assert _ranges(graph) == ranges
