# SPDX-License-Identifier: Apache-2.0
"""The stub of the compiled module is the one that nanobind's stubgen writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cpp_programs import ROOT

SCRIPT = ROOT / "tools" / "write_stub.py"
STUB = ROOT / "scn_fx" / "_core.pyi"


def test_the_stub_is_that_of_the_loaded_module() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_results_have_types_and_the_rest_has_no_placeholders() -> None:
    text = STUB.read_text(encoding="utf-8")
    assert "-> list[numpy.typing.NDArray | tuple[numpy.typing.NDArray, numpy.typing.NDArray]]" in text
    assert "-> dict[str, Any]" in text and "source: str | bytes" in text
    assert "object" not in text.split() and " -> tuple: " not in text and " -> list: " not in text


def test_a_stub_of_other_arguments_is_found(tmp_path: Path) -> None:
    changed = tmp_path / "_core.pyi"
    changed.write_text(STUB.read_text(encoding="utf-8").replace("output_bound: int,", "bound: int,", 1))
    code = f"import runpy; from pathlib import Path; m = runpy.run_path({str(SCRIPT)!r})\n"
    code += f"main = m['main']; main.__globals__['STUB'] = Path({str(changed)!r}); main()"
    command = [sys.executable, "-c", code, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "make ext stub" in done.stderr and "bound: int" in done.stderr
