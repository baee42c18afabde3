# SPDX-License-Identifier: Apache-2.0
"""Progress knows the time left before the first frame is through: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import re
import signal
import sys
import threading

import pytest

import quant
from scn_fx.quant import progress, status
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


def test_a_terminal_has_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")

    def shown(frames: object) -> str:
        quant.calibrate(residual(), frames, progress=True)  # type: ignore[arg-type]
        return re.sub(r"\x1b\[[\d;?]*\w", "", capsys.readouterr().err)

    assert re.search(r"3/3 +\d:\d\d:\d\d +left 0:00:00", shown(FRAMES))
    assert "3 frames" in shown(each for each in FRAMES)


class Clock:
    """Stands for the time: it passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_logs_have_lines_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with progress.progress_bar(True, 400, done=100) as bar:
        bar.advance(0.5)
        assert capsys.readouterr().err == "", "nothing in the first second"
        clock.now += 1.0
        bar.advance(0.5)
        assert capsys.readouterr().err == "Calibrating: 100/400, 0:00:01, 0:04:59 left\n"
        clock.now += 9.0
        bar.finish_frame(110)
        assert capsys.readouterr().err == "", "a line every ten seconds"
        clock.now += 1.0
        bar.finish_frame(111)
        assert capsys.readouterr().err == "Calibrating: 111/400, 0:00:11, 0:04:49 left\n"
        bar.finish_frame(400)
    assert capsys.readouterr().err == "Calibrating: 400/400, 0:00:11, 0:00:00 left\n", "and a last one"
    with progress.progress_bar(True, None, "Rounding") as bar:
        clock.now += 2.0
        bar.step()
    assert capsys.readouterr().err == "Rounding: 1, 0:00:02\n"


def test_short_work_and_libraries_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar(True, 1) as bar:
        bar.step()
    quant.calibrate(residual(), FRAMES)
    assert capsys.readouterr().err == ""


def test_what_a_command_is_doing_is_printed_after_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_FIRST", 0.0)
    monkeypatch.setattr(status, "_PAUSE", 0.0)
    found = ""
    with status.working("capturing\x1b") as say:
        while "capturing" not in found:
            found += capsys.readouterr().err
        say("exporting")
        while "exporting" not in found:
            found += capsys.readouterr().err
    assert re.fullmatch(r"capturing\\x1b \(\d s\)\nexporting \(\d s\)\n", found), "each once"
    with status.working("capturing", wanted=False) as say:
        say("exporting")
    monkeypatch.setattr(status, "_FIRST", 60.0)
    with status.working("quick"):
        pass
    assert capsys.readouterr().err == ""


def test_a_system_without_threads_gets_no_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with status.working("capturing"):
        pass
    assert capsys.readouterr().err == ""


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
