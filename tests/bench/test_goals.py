# SPDX-License-Identifier: Apache-2.0
"""Which goals a report reaches."""

from __future__ import annotations

import copy

from benchmarks.goals import check_goals
from tests.bench.samples import report


def test_a_good_report_reaches_every_goal() -> None:
    goals = check_goals(report())
    assert [goal for goal in goals if not goal.reached] == []
    assert len(goals) == 18
    first = goals[0]
    assert first.text.startswith("int8 over spconv") and first.found == "12.00 times"


def test_a_slow_precision_misses_its_goals() -> None:
    missed = {goal.text for goal in check_goals(report(int8=61.0, fp16=215.0)) if goal.reached is False}
    assert {text.split(",")[0] for text in missed} == {
        "int8 over spconv fp32",
        "fp16 against fp32",
        "order on small (17",
        "order on large (80",
    }


def test_cost_that_grows_faster_than_the_pairs_is_missed() -> None:
    found = report()
    for row in found["growth"]:
        row["time_times"] = row["pairs_times"] * 1.2
    missed = [goal.text for goal in check_goals(found) if goal.reached is False]
    assert len(missed) == 6 and all("growth" in text for text in missed)


def test_what_was_not_measured_is_neither() -> None:
    found = copy.deepcopy(report())
    found["memory"][0]["buffer_bytes"] = None
    for frame in found["frames"]:
        for run in frame["runs"]:
            run["speedup"] = None
    unknown = [goal.text for goal in check_goals(found) if goal.reached is None]
    assert len(unknown) == 3 and any("buffers" in text for text in unknown)


def test_large_buffers_and_heavy_imports_are_missed() -> None:
    found = report()
    found["memory"][0].update(buffer_bytes=151_000_000, unwanted=["torch"])
    found["imports"]["import scn_fx"] = 1001.0
    missed = [goal.text for goal in check_goals(found) if goal.reached is False]
    assert missed == ["engine buffers, int8", "heavy imports of a run, int8", "`import scn_fx`"]
