# SPDX-License-Identifier: Apache-2.0
"""`quant` is `scn_fx.quant`: one module under two names, and nothing of scn-fx needs the short one."""

from __future__ import annotations

import ast
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import quant
import scn_fx.quant
from scn_fx.quant.calibration import CalibrationResult

ROOT = Path(__file__).parents[2]
HOME = ROOT / "scn_fx" / "quant"
SUBMODULES = sorted(path.stem for path in HOME.glob("*.py") if path.stem != "__init__")


def test_both_names_are_one_module() -> None:
    assert quant is scn_fx.quant and len(SUBMODULES) > 60
    for name in SUBMODULES:
        short, home = (
            importlib.import_module(f"quant.{name}"),
            importlib.import_module(f"scn_fx.quant.{name}"),
        )
        assert short is home and short.__name__ == short.__spec__.name == f"scn_fx.quant.{name}"


def test_objects_pickled_by_the_short_name_are_read() -> None:
    text = pickle.dumps(CalibrationResult, protocol=0)
    assert b"scn_fx.quant.calibration" in text
    assert pickle.loads(text.replace(b"scn_fx.quant.calibration", b"quant.calibration")) is CalibrationResult


def test_a_name_that_is_not_there_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"'quant\.nothing'"):
        importlib.import_module("quant.nothing")
    with pytest.raises(ImportError, match="nothing"):
        exec("from quant import nothing")


def python(folder: Path, *words: str) -> str:
    """What a fresh interpreter prints that finds `folder` first, then scn-fx."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["quant", "scn_fx.quant"])
def test_both_names_run_as_a_command(tmp_path: Path, name: str) -> None:
    assert "Find int8 ranges for MODEL" in python(tmp_path, "-m", name, "--help")


def test_a_users_own_quant_folder_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "quant").mkdir()
    (tmp_path / "quant" / "__init__.py").write_text("raise SystemExit('the own one of a user')")
    (tmp_path / "quant" / "console.py").write_text("raise SystemExit('the own one of a user')")
    for command in ("calibrate", "sensitivity", "retrofit", "export", "inspect", "run", "compare", "demo"):
        assert "Usage" in python(tmp_path, "-m", "scn_fx.cli", command, "--help")
    assert '"packages"' in python(tmp_path, "-m", "scn_fx.cli", "env", "--json")
    assert "Find int8 ranges" in python(tmp_path, "-m", "scn_fx.quant", "--help")
    assert python(tmp_path, "-c", "import scn_fx; print(scn_fx.quant.METHODS)").startswith("('max',")


def test_nothing_of_scn_fx_imports_the_short_name() -> None:
    files = [*(ROOT / "scn_fx").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            assert not [name for name in names if name.partition(".")[0] == "quant"], path


def test_the_short_name_has_no_code_of_its_own() -> None:
    assert [path.name for path in sorted((ROOT / "quant").glob("*.py"))] == ["__init__.py"]
