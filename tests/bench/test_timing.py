# SPDX-License-Identifier: Apache-2.0
"""Medians, spread, ratios, and the order in which subjects run."""

from __future__ import annotations

import gc

import pytest

from scn_fx.bench.results import Subject, growth, noisy, result_rows
from scn_fx.bench.timing import Timing, interleaved, ratio
from scn_fx.errors import ArgumentError
from tests.bench.samples import frame, timing


def test_a_timing_tells_median_and_spread() -> None:
    found = timing(5.0, 1.0, 2.0, 4.0, 3.0).to_dict()
    assert found.pop("repetitions") == pytest.approx([5.0, 1.0, 2.0, 4.0, 3.0])
    wanted = {"median": 3.0, "min": 1.0, "max": 5.0, "quartile1": 2.0, "quartile3": 4.0}
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("seconds", [(), (1.0, 0.0)])
def test_a_timing_needs_times(seconds: tuple[float, ...]) -> None:
    with pytest.raises(ArgumentError, match="at least one time"):
        Timing(seconds)


def test_subjects_run_in_turn_and_warm_up_does_not_count() -> None:
    ran: list[str] = []
    now = iter(range(1000))
    # Each reading of the clock is one second later, so every run takes one second.
    found = interleaved(
        {name: lambda name=name: ran.append(name) for name in "ab"},  # type: ignore[misc]
        2,
        warmup=1,
        pause=0.0,
        clock=lambda: float(next(now)),
    )
    assert "".join(ran) == "ababab"
    assert found == {"a": Timing((1.0, 1.0)), "b": Timing((1.0, 1.0))}
    assert gc.isenabled()


def test_a_failing_subject_leaves_the_garbage_collector_on() -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        interleaved({"a": fail}, 1)
    assert gc.isenabled()


def test_no_repetition_is_refused() -> None:
    with pytest.raises(ArgumentError, match="repeat must be at least 1"):
        interleaved({}, 0)


def test_ratios_are_of_medians_and_of_rounds() -> None:
    found = ratio(timing(100.0, 110.0, 120.0), timing(10.0, 5.0, 20.0))
    assert found == pytest.approx({"median": 11.0, "min": 6.0, "max": 22.0})


def test_rows_compare_with_spconv_of_as_many_threads_and_with_one_thread() -> None:
    timings = {
        Subject("spconv", "fp32", 1): timing(900.0),
        Subject("spconv", "fp32", 2): timing(600.0),
        Subject("scn-fx", "int8", 1): timing(90.0),
        Subject("scn-fx", "int8", 2): timing(50.0),
    }
    rows = {(row["engine"], row["threads"]): row for row in result_rows(timings)}
    assert rows["scn-fx", 1]["speedup"]["median"] == pytest.approx(10.0)
    assert rows["scn-fx", 2]["speedup"]["median"] == pytest.approx(12.0)
    assert rows["scn-fx", 2]["scaling"]["median"] == pytest.approx(1.8)
    assert rows["spconv", 2]["scaling"]["median"] == pytest.approx(1.5)
    assert rows["scn-fx", 1]["scaling"] is None and rows["spconv", 2]["speedup"] is None


def test_rows_without_spconv_or_one_thread_have_no_ratios() -> None:
    (row,) = result_rows({Subject("scn-fx", "int8", 2): timing(50.0)})
    assert row["speedup"] is None and row["scaling"] is None


def test_growth_compares_the_frames_with_fewest_and_most_pairs() -> None:
    frames = [frame("large", 2, 5_000_000), frame("small", 9, 1_000_000, 0.25), frame("empty", 0, 0)]
    rows = growth(frames)
    assert len(rows) == 8
    row = next(r for r in rows if (r["precision"], r["threads"]) == ("int8", 2))
    assert row["frames"] == ["small", "large"]
    assert row["ms_per_million_pairs"] == pytest.approx([12.5, 10.0])
    assert row["pairs_times"] == pytest.approx(5.0) and row["time_times"] == pytest.approx(4.0)
    assert growth(frames[:1]) == []


def test_a_subject_that_varies_twofold_is_called_noisy() -> None:
    quiet = {Subject("scn-fx", "int8", 1): timing(10.0, 19.0)}
    loud = {Subject("spconv", "fp32", 2): timing(500.0, 600.0, 17_000.0)}
    frames = [{"frame": "f", "runs": result_rows({**quiet, **loud})}]
    assert noisy(frames) == ["spconv fp32, 2 thread(s) on f: 500.0 to 17000.0 ms"]
