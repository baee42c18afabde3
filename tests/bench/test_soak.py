# SPDX-License-Identifier: Apache-2.0
"""The soak finds what it looks for, and nothing in an engine that is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.soak import run
from benchmarks.soak.memory import ALLOWED, Watch


def test_a_short_soak_is_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "soak.json"
    assert main(["soak", "--frames", "300", "--threads", "1", "--json", str(file)]) == 0
    outcomes = json.loads(file.read_text())
    assert [o["precision"] for o in outcomes] == ["int8", "fp16", "fp32"]
    for outcome in outcomes:
        assert outcome["frames"] == 300 and outcome["compared"] >= 1 and not outcome["wrong"]
        assert sum(outcome["refused"].values()) > 3
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize("growing, growth", [(False, 0), (True, 60 * 10)])
def test_growth_is_that_of_the_samples_after_the_warm_up(growing: bool, growth: int) -> None:
    values = iter([50 + 10 * i if growing else 50 + 1000 * (i < 10) for i in range(100)])
    watch = Watch(lambda: next(values))
    for _ in range(100):
        watch.sample()
    assert watch.growth() == growth < ALLOWED


def test_other_bits_and_missing_errors_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lying(run.Engine):
        calls = 0

        def __call__(self, features: object, *others: object, **more: object) -> object:
            Lying.calls += 1
            array = np.nan_to_num(np.asarray(features))
            return np.full(3, Lying.calls, np.float16) if array.size else array

    monkeypatch.setattr(run, "Engine", Lying)
    wrong = run.soak("fp16", "cpu", 200, threads=1).wrong
    assert any("other bits than a new engine's" in text for text in wrong)
    assert any("a frame that is wrong" in text for text in wrong)
