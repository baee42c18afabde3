# SPDX-License-Identifier: Apache-2.0
"""The layers of the C++ sources: each includes what lies below it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "scn_fx" / "csrc"
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh"))

# What each layer may include besides its own files; files right under cuda/ and cpu/ stand on their folders.
BELOW = {
    "include": set(),
    "core": {"include"},
    "onnx": {"include", "core"},
    "plan": {"include", "core", "onnx"},
    "cpu/maps": {"include", "core"},
    "cpu/kernels": {"include", "core", "cpu/maps"},
    "cpu/convolution": {"include", "core", "cpu/maps", "cpu/kernels"},
    "cpu": {"include", "core", "plan", "cpu/maps", "cpu/kernels", "cpu/convolution"},
    "cpu/operators": {"include", "core", "cpu/maps", "cpu/kernels", "cpu/convolution"},
    "cuda/bounds.h": set(),
    "cuda/views.h": {"include", "core"},
    "cuda/traits.h": {"include", "core", "plan/traits.h", "cuda/bounds.h"},
    "cuda/runtime": {"include", "core"},
    "cuda/sites": {"include", "core", "cuda/views.h", "cuda/bounds.h", "cuda/runtime"},
}
BELOW["cuda/maps"] = BELOW["cuda/sites"] | {"cuda/sites"}
BELOW["cuda/convolution"] = BELOW["cuda/maps"]
BELOW["cuda/rows"] = BELOW["cuda/convolution"] | {"cuda/convolution"}
BELOW["cuda/operators"] = BELOW["cuda/rows"] | {"cuda/rows", "cuda/maps"}
BELOW["cuda"] = BELOW["cuda/operators"] | {"cuda/operators", "cuda/traits.h", "plan"}
BELOW["plan_file"] = {"include", "core", "onnx", "plan", "cuda/backend.h"}
BELOW["engine"] = BELOW["plan_file"] | {"plan_file", "cpu", "cpu/convolution", "cuda/traits.h"}
BELOW["python"] = BELOW["engine"] | {"engine", "cpu/operators", "cpu/kernels", "cuda/operators/operators.h"}


def _layer(path: str) -> str:
    """The layer of a file, the most special one that it has."""
    if path.startswith("scn_fx/"):
        return "include"
    parts = path.split("/")
    return max(
        (name for name in BELOW if path == name or path.startswith(f"{name}/")), key=len, default=parts[0]
    )


def _allowed(layer: str, included: str) -> bool:
    target = _layer(included)
    return target == layer or target in BELOW[layer] or included in BELOW[layer]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CSRC)))
def test_includes_go_down(path: Path) -> None:
    own = str(path.relative_to(CSRC))
    layer = "include" if own.startswith("include/") else _layer(own)
    includes = re.findall(r'^#include "([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
    wrong = [name for name in includes if not _allowed(layer, name)]
    assert wrong == [], f"{layer} must not include these: {wrong}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CSRC)))
def test_files_can_be_read_in_one_sitting(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    code = [line for line in lines if not line.strip().startswith("//")]
    assert len(code) <= 400, f"{len(code)} lines of code; split the file"
