# SPDX-License-Identifier: Apache-2.0
"""What importing costs: each check runs in its own interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "spconv", "modelopt", "matplotlib", "onnx", "onnxscript", "click", "rich")


def loaded_after(code: str, modules: tuple[str, ...]) -> set[str]:
    """Which of `modules` a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(*[m for m in {modules!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import scn_fx", (*HEAVY, "numpy")),
        ("from scn_fx import Engine", HEAVY),
        ("from scn_fx import Engine, compare\nfrom scn_fx.runtime import compare_arrays", HEAVY),
        ("import scn_fx.lidar", HEAVY),
        ("import quant", HEAVY),
        ("import scn_fx.cli", HEAVY),
        ("import scn_fx.zoo", ("spconv", "modelopt", "matplotlib")),
        ("import scn_fx.detection", ("spconv", "modelopt", "matplotlib", "onnx")),
        ("import torch, scn_fx.capture, scn_fx.onnx, scn_fx.ops", ("spconv", "modelopt", "matplotlib")),
    ],
)
def test_imports_stay_light(code: str, absent: tuple[str, ...]) -> None:
    assert loaded_after(code, absent) == set()


def test_an_engine_runs_without_torch() -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(["torch", "onnx", "spconv"]))  # importing any of them is an error now
import numpy as np
from scn_fx import Engine
from scn_fx.errors import MissingPackageError, OnnxError
import scn_fx
try:
    Engine(b"nothing")
except OnnxError:
    pass
import quant
for ask in (lambda: scn_fx.capture, lambda: quant.calibrate, lambda: scn_fx.compare(None, b"", [])):
    try:
        ask()
    except MissingPackageError as error:
        print("refused", "scn-fx[" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["refused", "True"] * 3


def test_every_public_name_resolves() -> None:
    import quant
    import scn_fx
    import scn_fx.runtime

    for module in (scn_fx, quant, scn_fx.runtime):
        for name in module.__all__:
            assert getattr(module, name) is not None, f"{module.__name__}.{name}"
    assert callable(scn_fx.runtime.compare) and scn_fx.compare is scn_fx.runtime.compare
