# SPDX-License-Identifier: Apache-2.0
"""The progress bar knows the time left before the first frame is through."""

from __future__ import annotations

import re
import signal

import pytest

import quant
from scn_fx.quant import progress
from scn_fx.quant.interrupts import uninterrupted
from tests.quant.graphs import frame, residual

FRAMES = [frame(seed) for seed in range(3)]


def test_layers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, int]] = []

    class Watched(progress.Bar):
        def advance(self, share: float) -> None:
            super().advance(share)
            seen.append((self._done, 0))

        def finish_frame(self, frames: int) -> None:
            super().finish_frame(frames)
            seen.append((self._done, frames))

    monkeypatch.setattr(progress, "Bar", Watched)
    quant.calibrate(residual(), FRAMES, progress=True)
    done = [share for share, _ in seen]
    first = next(position for position, (_, frames) in enumerate(seen) if frames == 1)
    assert first > 5 and len(set(done[:first])) > 5  # several steps before the first frame is through
    assert done == sorted(done) and done[-1] == pytest.approx(3)


def test_time_left_and_frames_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    quant.calibrate(residual(), FRAMES, progress=True)
    assert re.search(r"3/3 \d:\d\d:\d\d left 0:00:00", capsys.readouterr().err)
    quant.calibrate(residual(), iter(FRAMES), progress=True)
    assert "3 frames" in capsys.readouterr().err


def test_ctrl_c_waits_for_the_end_of_a_block(request: pytest.FixtureRequest) -> None:
    # A shell starts what runs in its background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            steps.append("whole")
        steps.append("not reached")
    assert steps == ["whole"]
