# SPDX-License-Identifier: Apache-2.0
"""The layer table: medians over profiles, speed, share of the peak, sums, pairs."""

from __future__ import annotations

import pytest

from scn_fx.bench.layers import active_pairs, group_of, layer_rows, totals, weight_widths
from scn_fx.errors import ArgumentError
from scn_fx.runtime.engine import StageTime


def profile(factor: float) -> list[StageTime]:
    return [
        StageTime("check", "input", 0.001 * factor, 0),
        StageTime("sites", "input", 0.002 * factor, 0),
        StageTime("subm_map", "a", 0.003 * factor, 0),
        StageTime("convolution", "a", 0.010 * factor, 1_000_000_000),
        StageTime("convolution", "b", 0.020 * factor, 4_000_000_000),
        StageTime("scatter_dense", "dense", 0.004 * factor, 0),
    ]


PROFILES = [profile(1.0), profile(3.0), profile(2.0)]


def test_rows_are_medians_with_speed_and_share_of_the_right_peak() -> None:
    rows = layer_rows(PROFILES, {"a": "fp16", "b": "int8"}, {"fp32": 400e9, "int8": 1600e9})
    assert [row.name for row in rows] == ["input", "input", "a", "a", "b", "dense"]
    _, _, kernel_map, a, b, _ = rows
    assert kernel_map.precision is None and kernel_map.gops is None and kernel_map.peak_share is None
    assert kernel_map.milliseconds == pytest.approx(6.0)
    # Two operations per multiply-accumulate: 2e9 in 20 ms, 8e9 in 40 ms.
    assert (a.milliseconds, a.gops, a.peak_share) == pytest.approx((20.0, 100.0, 0.25))
    assert (b.milliseconds, b.gops, b.peak_share) == pytest.approx((40.0, 200.0, 0.125))
    assert b.to_dict()["macs"] == 4_000_000_000


def test_without_a_measured_peak_there_is_no_share() -> None:
    rows = layer_rows(PROFILES, {"a": "fp32", "b": "int8"}, {"fp32": None})
    assert all(row.peak_share is None for row in rows) and rows[3].gops == pytest.approx(100.0)


def test_totals_group_the_stages() -> None:
    found = totals(PROFILES)
    wanted = {"kernel maps": 10.0, "convolutions": 60.0, "rest": 10.0, "total": 80.0}
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("kind", "group"),
    [("output_sites", "kernel maps"), ("inverse_map", "kernel maps"), ("load", "rest"), ("add", "rest")],
)
def test_stages_belong_to_groups(kind: str, group: str) -> None:
    assert group_of(kind) == group


def test_profiles_must_be_of_one_engine() -> None:
    with pytest.raises(ArgumentError, match="one engine on one frame, got other stages"):
        layer_rows([profile(1.0), profile(1.0)[:-1]], {}, {})
    with pytest.raises(ArgumentError, match="got none"):
        totals([])


def test_pairs_are_products_over_widths() -> None:
    model = {
        "initializers": {"a.weight": {"shape": [16, 3, 3, 3, 5]}, "b.weight": {"shape": [32, 1, 1, 1, 16]}},
        "nodes": [
            {"name": "a", "op_type": "SparseConvolution", "inputs": ["x", "a.weight"]},
            {"name": "b", "op_type": "SparseConvolution", "inputs": ["a", "b.weight"]},
            {"name": "c", "op_type": "Relu", "inputs": ["b"]},
        ],
    }
    widths = weight_widths(model)
    assert widths == {"a": 80, "b": 512}
    stages = [StageTime("convolution", "a", 1.0, 80 * 7), StageTime("convolution", "b", 1.0, 512 * 3)]
    assert active_pairs([*stages, StageTime("load", "x", 1.0, 0)], widths) == 10
