# SPDX-License-Identifier: Apache-2.0
"""Quantisation of graphs with several outputs: a value that leaves the graph counts, and stays what it is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import quant
from scn_fx.errors import CalibrationError
from scn_fx.graph import layers
from scn_fx.graph_outputs import listed
from scn_fx.quant.scale_groups import scale_groups
from tests.quant.graphs import frame, residual, two_outputs

FRAMES = [frame(seed) for seed in range(3)]


def test_equalisation_leaves_the_values_of_outputs_alone() -> None:
    inner = {layer.name for group in scale_groups(residual()) for layer in group.producers}
    left = {layer.name for group in scale_groups(two_outputs()) for layer in group.producers}
    assert inner == {"conv_input.0", "conv1.0.conv1", "conv1.0.conv2"}
    assert left == {"conv1.0.conv1"}
    graph = two_outputs()
    before = listed(graph(*FRAMES[0]))
    quant.equalize(graph, FRAMES, progress=False)
    for old, new in zip(before, listed(graph(*FRAMES[0])), strict=True):
        assert torch.allclose(old.float(), new.float(), atol=2e-3)


def test_a_value_that_is_an_output_is_handed_on_rounded_to_float16() -> None:
    single, several = residual(), two_outputs()
    for graph in (single, several):
        quant.calibrate(graph, FRAMES, progress=False)
    one, two = (
        {each.name: each.output_precision for each in layers(g) if each.spec.quantisable}
        for g in (single, several)
    )
    assert one["conv1.0.add"] == "int8"
    assert two == {**one, "conv1.0.add": "fp16"}


def test_sensitivity_is_that_of_the_worst_output() -> None:
    single, several = residual(), two_outputs()
    for graph in (single, several):
        quant.calibrate(graph, FRAMES, method="max", progress=False)
    alone, both = (quant.sensitivity(graph, FRAMES, progress=False) for graph in (single, several))
    rows = {row.name: row.sqnr_db for row in both.layers}
    for row in alone.layers:
        assert rows[row.name] <= row.sqnr_db + 1e-9
    # The last convolution changes the dense map alone.
    assert math.isclose(rows["extra_conv.0"], {r.name: r.sqnr_db for r in alone.layers}["extra_conv.0"])


def test_precisions_are_chosen_and_everything_is_improved() -> None:
    graph = two_outputs()
    result = quant.quantize(graph, FRAMES, improve=("equalize", "round", "bias"), progress=False)
    assert result.calibration.frames == 3
    choice = quant.choose_precision(graph, FRAMES, budget="sqnr>=42", progress=False)
    assert set(choice.precisions.values()) == {"fp16", "int8"}
    (values, sites), dense = graph(*FRAMES[0])
    assert values.shape == (len(sites), 4) and dense.shape[1] == 8


def test_a_cache_belongs_to_the_outputs_it_was_made_for(tmp_path: Path) -> None:
    graph = two_outputs()
    quant.calibrate(graph, FRAMES, progress=False, cache=tmp_path / "cache.json")
    again = two_outputs()
    quant.load_cache(again, tmp_path / "cache.json")
    assert all(
        torch.equal(a, b) for a, b in zip(listed(graph(*FRAMES[1])), listed(again(*FRAMES[1])), strict=True)
    )
    with pytest.raises(CalibrationError):
        quant.load_cache(residual(), tmp_path / "cache.json")
