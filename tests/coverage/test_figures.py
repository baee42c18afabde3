# SPDX-License-Identifier: Apache-2.0
"""`make coverage`: what counts as an error that no test provoked, and when the figures fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import instrumented
from tests.coverage import __main__ as figures
from tests.coverage import cpp, python
from tests.coverage.figures import Figures
from tests.coverage.unreached import cpp_errors, python_errors, write
from tests.cpp_programs import ROOT

PYTHON = """
def f(x):
    if x < 0:
        raise ValueError(
            f"got {x}"
        )
    try:
        return 1 / x
    except ZeroDivisionError:
        raise
"""
CPP = """
[[noreturn]] void fail_deep(int n) {
  fail(ErrorKind::kOnnx, "too deep: ", n);
}
void run(int n) {
  if (n > 3) fail_deep(n);
  if (n < 0) throw std::bad_alloc();
  failures(n);
}
"""


def test_errors_are_found_with_their_lines() -> None:
    assert python_errors(PYTHON) == {4: "raise ValueError(f'got {x}')"}
    assert list(cpp_errors(CPP)) == [3, 6, 7]


def test_only_errors_that_did_not_run_are_listed(tmp_path: Path) -> None:
    source = ROOT / "scn_fx" / "errors.py"
    used = ROOT / "scn_fx" / "csrc" / "core" / "failures.cpp"
    (line, *_), lines = cpp_errors(used.read_text()), range(1, 1000)
    assert write({source: set(lines)}, {used: {line}}, tmp_path / "list.txt") == 1
    assert (tmp_path / "list.txt").read_text().startswith(f"scn_fx/csrc/core/failures.cpp:{line}  fail(")


@pytest.mark.parametrize(
    ("lines", "files", "arguments", "code"),
    [
        (90.0, 85.0, [], 0),
        (89.99, 100.0, [], 1),
        (100.0, 84.99, [], 1),
        (10.0, 10.0, ["tests/core"], 0),
    ],
)
def test_a_figure_below_its_limit_fails(
    lines: float,
    files: float,
    arguments: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(instrumented, "build", lambda *words: tmp_path)
    monkeypatch.setattr(python, "forget", lambda: None)
    monkeypatch.setattr(figures, "_run_tests", lambda build, words: 0)
    monkeypatch.setattr(python, "measure", lambda folder: Figures(lines, 1000, {}))
    monkeypatch.setattr(cpp, "measure", lambda build: Figures(files, 1000, {}))
    monkeypatch.setattr(figures, "FOLDER", ROOT / "build" / "coverage")
    monkeypatch.setattr(figures.unreached, "write", lambda *given: 0)
    assert figures.main(arguments) == code
    assert f"{lines:6.2f} % of 1,000 lines and branches, at least 90 % wanted" in capsys.readouterr().out


def test_failing_tests_fail_whatever_the_figures_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(instrumented, "build", lambda *words: tmp_path)
    monkeypatch.setattr(python, "forget", lambda: None)
    monkeypatch.setattr(figures, "_run_tests", lambda build, words: 2)
    monkeypatch.setattr(python, "measure", lambda folder: Figures(100, 1, {}))
    monkeypatch.setattr(cpp, "measure", lambda build: Figures(100, 1, {}))
    monkeypatch.setattr(figures.unreached, "write", lambda *given: 0)
    assert figures.main([]) == 2
