# SPDX-License-Identifier: Apache-2.0
"""A small calibrated graph and its ONNX file, made once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import fx

from scn_fx.exporting import export_onnx
from tests.quant.graphs import frame, residual


@pytest.fixture(scope="session")
def calibrated_template() -> fx.GraphModule:
    import quant

    graph = residual()
    quant.calibrate(graph, [frame(0), frame(1)], method="max")
    return graph


@pytest.fixture
def calibrated(calibrated_template: fx.GraphModule) -> fx.GraphModule:
    """The calibrated graph, a copy that a test may change."""
    return copy.deepcopy(calibrated_template)


@pytest.fixture(scope="session")
def files(
    tmp_path_factory: pytest.TempPathFactory, calibrated_template: fx.GraphModule
) -> Callable[[str], Path]:
    """Path of the "int8" (calibrated) or the "float" file, written when first asked for."""
    folder = tmp_path_factory.mktemp("onnx")

    def path_of(kind: str) -> Path:
        path = folder / f"{kind}.onnx"
        if not path.exists():
            export_onnx(calibrated_template if kind == "int8" else residual(), path, "torchscript")
        return path

    return path_of
