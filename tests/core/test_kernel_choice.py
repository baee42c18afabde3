# SPDX-License-Identifier: Apache-2.0
"""Which kernel a layer runs on the CPU is chosen when a file is loaded, and said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scn_fx import Engine
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle.builder import Piece, build_onnx, convolution

GRID = (4, 6, 8)
SITES = np.array([[0, z, y, 1] for z in range(4) for y in range(6)], np.int32)


def _layer(name: str, source: str, result: str, channels: int, out: int, **options: Any) -> Piece:
    weight = np.zeros((out, 3, 3, 3, channels), np.float16)
    shapes = {"input_shape": GRID, "output_shape": GRID, "padding": (1, 1, 1), "subm": True, "rulebook": "a"}
    return convolution(name, source, result, weight, **shapes, **options)


def _int8(out: int) -> dict[str, Any]:
    ranges = {"input_range": 1.0, "weight_ranges": [1.0] * out}
    return {"precision": "int8", "output_precision": "int8", **ranges}


NETWORK = build_onnx(
    _layer("first", "features", "a", 5, 16, activation="ReLU"),
    _layer("narrow", "a", "b", 16, 16, **_int8(16)),
    _layer("signed", "b", "c", 16, 16, **_int8(16)),
    _layer("wide", "c", "d", 16, 128, **_int8(128)),
    _layer("deep", "d", "e", 128, 16, **_int8(16)),
    _layer("half", "e", "f", 16, 64),
)

# What runs where.
EXPECTED = {
    "portable": ["portable blocks"] * 6,
    "avx2": ["avx2 rows", "avx2 rows"] + ["avx2 blocks"] * 4,
    "avxvnni": ["avx2 rows", "avxvnni rows"] + ["avxvnni blocks"] * 3 + ["avx2 blocks"],
    "avx512vnni": ["avx512 rows"] + ["avx512vnni rows"] * 2 + ["avx512vnni blocks"] * 2 + ["avx512 blocks"],
    "amx": ["avx512 rows"] + ["avx512vnni rows"] * 2 + ["avx512vnni blocks", "amx tiles", "avx512 blocks"],
}


@pytest.mark.parametrize("isa", SUPPORTED)
def test_the_kernel_of_each_layer(isa: str) -> None:
    with instruction_set(isa):
        engine = Engine(NETWORK)
    kernels = [step["kernel"] for step in engine.describe()["steps"] if step["kind"] == "convolution"]
    assert kernels == EXPECTED[isa]
    stages = engine.profile(np.zeros((len(SITES), 5), np.float16), SITES)
    assert [stage.kernel for stage in stages if stage.kind == "convolution"] == kernels


def test_the_choices_are_printed_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCN_FX_PRINT_KERNELS", "1")
    with instruction_set("portable"):
        Engine(NETWORK)
    lines = capfd.readouterr().err.splitlines()
    assert lines[1] == "scn-fx: narrow: int8 16 -> 16, 27 offsets, no negative features: portable blocks"
    assert len(lines) == 6
