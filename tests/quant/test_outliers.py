# SPDX-License-Identifier: Apache-2.0
"""Values that one voxel or one frame alone brings: found, named, left out; and ordinary frames left alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quant
from scn_fx.errors import CalibrationWarning
from scn_fx.lidar import embedded_frame, real_frames
from scn_fx.quant.outliers import GAP, find_outliers, peaks
from tests.oracle.frames import Frame, data_folder
from tests.quant.graphs import GRID, GraphBuilder

SPAN = np.array([54.0, 54.0, 4.0, 255.0, 0.45])


def lidar_like(seed: int, sites: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    """Five columns in the units of a LiDAR frame; intensity has a heavy tail."""
    rng = np.random.default_rng(seed)
    cells = np.sort(rng.choice(int(np.prod(GRID)), sites, replace=False))
    indices = np.stack([np.zeros(sites, int), *np.unravel_index(cells, GRID)], axis=1).astype(np.int32)
    values = rng.uniform(-1, 1, (sites, 5)) * SPAN
    values[:, 3:] = np.abs(values[:, 3:])
    values[:, 3] *= rng.random(sites) ** 3
    return torch.from_numpy(values.astype(np.float32)), torch.from_numpy(indices)


def encoder() -> torch.fx.GraphModule:
    """Six convolutions and an Add over five columns; the first layer brings all columns to one size."""
    build = GraphBuilder(seed=4)
    weight = build.rng.standard_normal((8, 3, 3, 3, 5)) / SPAN / 4
    x = build.conv(build.features, "stem", (5, 8), weight=torch.from_numpy(weight.astype(np.float32)))
    y = build.conv(x, "block.conv1", (8, 8))
    x = build.add(build.conv(y, "block.conv2", (8, 8), relu=False), x, "block.add")
    for number in range(3):
        x = build.conv(x, f"tail.{number}", (8, 8))
    return build.finish(build.dense(x))


def calibrated(frames: Sequence[Any], **options: Any) -> tuple[torch.fx.GraphModule, list[str]]:
    graph = encoder()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = quant.calibrate(graph, frames, progress=False, **options)
    texts = [str(w.message) for w in caught if issubclass(w.category, CalibrationWarning)]
    assert tuple(texts) == result.warnings
    return graph, texts


def sqnr(graph: torch.fx.GraphModule, frame: Sequence[torch.Tensor]) -> float:
    """Of the calibrated graph against the float graph, in dB."""
    exact, result = encoder()(*frame).double(), graph(*frame).double()
    return float(10 * torch.log10(exact.square().sum() / (result - exact).square().sum()))


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("factor", [10.0, -300.0, 1e4])
def test_one_damaged_value_costs_at_most_one_decibel_and_is_named(column: int, factor: float) -> None:
    frames = [lidar_like(seed) for seed in range(3)]
    clean, texts = calibrated(frames)
    assert texts == []
    damaged = [(features.clone(), indices) for features, indices in frames]
    damaged[1][0][77, column] = factor * SPAN[column]
    graph, texts = calibrated(damaged)
    assert sqnr(graph, frames[1]) >= sqnr(clean, frames[1]) - 1
    (text,) = texts
    assert f"Frame 1, column {column} of features" in text and "voxel 77 of 500 (0.002 of all)" in text
    assert f"{abs(factor) * SPAN[column]:.6g}"[:4] in text and "left out" in text


def test_a_single_frame_is_served_as_well() -> None:
    features, indices = lidar_like(5)
    clean, _ = calibrated([(features, indices)])
    hurt = features.clone()
    hurt[9, 2], hurt[400, 3] = 3000.0, -60000.0
    graph, texts = calibrated([(hurt, indices)])
    assert sqnr(graph, (features, indices)) >= sqnr(clean, (features, indices)) - 1
    assert ["column 2" in texts[0], "column 3" in texts[1]] == [True, True]


def test_several_damaged_voxels_of_one_frame_go_together() -> None:
    frames = [lidar_like(seed, 800) for seed in range(3)]
    clean, _ = calibrated(frames)
    hurt = frames[2][0].clone()
    hurt[10:18, 0] = 54 * torch.logspace(1, 4, 8)  # one percent, none like the other
    graph, texts = calibrated([*frames[:2], (hurt, frames[2][1])])
    assert sqnr(graph, frames[2]) >= sqnr(clean, frames[2]) - 1
    assert len(texts) == 1 and "8 voxels of 800 (0.01 of all)" in texts[0]


def test_keep_uses_them_and_says_so() -> None:
    features, indices = lidar_like(0)
    hurt = features.clone()
    hurt[3, 0] = 5400.0
    graph, texts = calibrated([(hurt, indices)], outliers="keep")
    clean, _ = calibrated([(features, indices)])
    assert "used all the same" in texts[0]
    assert sqnr(graph, (features, indices)) < sqnr(clean, (features, indices)) - 6


def test_a_sensor_that_damages_every_frame_gives_a_few_lines() -> None:
    frames = [lidar_like(seed, 200) for seed in range(14)]
    for features, _ in frames:
        features[0, 2] = 1e4
    _, texts = calibrated(frames)
    assert len(texts) == 11 and texts[-1] == "There are 4 more findings of this kind."


@pytest.mark.parametrize("bad", [0, 2, 5])
def test_a_frame_in_other_units_is_left_out_wherever_it_comes(bad: int) -> None:
    frames = [lidar_like(seed) for seed in range(6)]
    rest = [frame for number, frame in enumerate(frames) if number != bad]
    other = frames[bad][0].clone()
    other[:, 3] *= 255
    mixed = [*frames[:bad], (other, frames[bad][1]), *frames[bad + 1 :]]
    graph, texts = calibrated(mixed)
    expected, _ = calibrated(rest)
    assert [n.kwargs for n in graph.graph.nodes] == [n.kwargs for n in expected.graph.nodes]
    assert len(texts) == 1 and f"Frame {bad}, column 3" in texts[0] and "left out" in texts[0]
    assert graph.meta["scn_fx"]["calibration"]["frames"] == 5


def test_two_frames_that_support_each_other_are_both_used() -> None:
    frames = [lidar_like(seed) for seed in range(6)]
    wide = [(features * torch.tensor([1, 1, 1, 50, 1.0]), indices) for features, indices in frames[3:5]]
    graph, texts = calibrated([*frames[:3], wide[0], frames[5], wide[1]])
    assert texts == [] and graph.meta["scn_fx"]["calibration"]["frames"] == 6


def test_of_two_frames_nobody_can_tell_which_is_right() -> None:
    first, second = lidar_like(0), lidar_like(1)
    graph, texts = calibrated([first, (second[0] * 100, second[1])])
    assert graph.meta["scn_fx"]["calibration"]["frames"] == 2
    assert texts and all("Frame 1" in text and "used all the same" in text for text in texts)


def test_a_layer_whose_range_one_frame_alone_sets_is_named() -> None:
    frames = [lidar_like(seed, 60) for seed in range(3)]
    crowded = lidar_like(7, 800)  # ordinary values, but far more neighbours
    aligned = crowded[0].abs() * torch.sign(encoder().stem_weight[0].sum((0, 1, 2)))
    _, texts = calibrated([*frames, (aligned, crowded[1])])
    assert any("Frame 3" in text and "alone brings the largest values" in text for text in texts)


@pytest.mark.parametrize("name", ["synthetic", "synthetic-1", "synthetic-2", "real"])
def test_ordinary_frames_have_no_outliers(name: str) -> None:
    frames = [embedded_frame(int(name[-1]) if name[-1].isdigit() else 0)]
    frames = frames if name != "real" else (real_frames() if data_folder() else [])
    for one in frames:
        assert find_outliers(torch.from_numpy(one.features).float()) == []


def test_a_damaged_voxel_is_found_in_a_large_frame(frame: Frame) -> None:
    features = torch.from_numpy(frame.features.astype(np.float32))
    usual = peaks(features)
    for column in range(5):
        for factor in (10, 100, 1000, 10_000):
            hurt = features.clone()
            hurt[4321 % len(hurt), column] = factor * usual[column]
            (found,) = find_outliers(hurt)
            assert found.column == column and found.rows.nonzero().flatten().tolist() == [4321 % len(hurt)]
            assert found.rest <= usual[column]


@pytest.mark.parametrize("step", [1.5, 2.5, 2.9])
def test_a_ladder_of_damaged_values_is_found_although_each_step_is_small(frame: Frame, step: float) -> None:
    features = torch.from_numpy(frame.features.astype(np.float32))
    usual = peaks(features)
    for column in range(5):
        hurt = features.clone()
        for rung in range(6):
            hurt[100 * rung, column] = step ** (rung + 1) * usual[column]
        (found,) = find_outliers(hurt)
        assert found.column == column and found.rest <= GAP * usual[column]
        assert not found.rows.logical_and(features.new_ones(len(features)).bool().index_fill(
            0, torch.arange(0, 600, 100), False)).any()  # fmt: skip
        assert float(hurt[~found.rows, column].abs().max()) == found.rest


def test_what_other_frames_hold_is_ordinary() -> None:
    features = torch.from_numpy(np.random.default_rng(0).random((400, 2)).astype(np.float32))
    features[7, 1] = 90.0
    assert [each.column for each in find_outliers(features)] == [1]
    assert find_outliers(features, torch.tensor([1.0, 80.0])) == []


def test_an_empty_column_is_no_measure_unless_a_single_voxel_of_many_fills_it() -> None:
    flags = torch.zeros(2000, 2)
    flags[:20, 0] = 1.0  # a rare class
    assert find_outliers(flags) == []
    flags[5, 1] = 0.5
    assert [each.column for each in find_outliers(flags)] == [1]
    assert find_outliers(flags[:900]) == []


@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.floats(1.01, 50), st.sampled_from([100, 350, 1200]))
def test_exactly_what_lies_beyond_the_gap_is_found(seed: int, count: int, factor: float, sites: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.uniform(0.5, 1, sites - count), rng.uniform(factor, 2 * factor, count)])
    signed = values * rng.choice([-1, 1], sites)
    order = rng.permutation(sites)
    found = find_outliers(torch.from_numpy(signed[order].astype(np.float32))[:, None])
    rare = 0 < count <= sites // 100
    beyond = rare and values[sites - count :].min() > GAP * values[: sites - count].max() * (1 + 1e-6)
    if beyond:
        assert np.array_equal(found[0].rows.numpy(), order >= sites - count)
    elif count == 0 or not rare or values[sites - count :].max() < GAP * 0.999:
        assert found == []
