# SPDX-License-Identifier: Apache-2.0
"""Exports each graph once per exporter and hands the files to all tests of a session."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import fx

from scn_fx.onnx import export_options, onnx_view
from tests.onnx import graphs
from tests.onnx.reader import ReadModel, read_model

GRAPHS: dict[str, Callable[[], fx.GraphModule]] = {
    "small": graphs.small_graph,
    "small calibrated": lambda: graphs.calibrate(graphs.small_graph()),
    "sparse": graphs.sparse_graph,
    "encoder": graphs.encoder,
    "encoder calibrated": lambda: graphs.calibrate(graphs.encoder()),
}
EXPORTERS = ("dynamo", "torchscript")


def write(graph: fx.GraphModule, path: Path, exporter: str, features: torch.Tensor | None = None) -> float:
    """Export as a user would and return the seconds it took."""
    features = torch.rand(50, 5).half() if features is None else features
    start = time.perf_counter()
    view = onnx_view(graph)
    options = export_options(graph, exporter=exporter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        torch.onnx.export(view, (features,), path, dynamo=exporter == "dynamo", **options)
    return time.perf_counter() - start


class Exports:
    """Files by graph and exporter, written on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[tuple[str, str], float] = {}

    def path(self, graph: str, exporter: str) -> Path:
        path = self.folder / f"{graph.replace(' ', '_')}.{exporter}.onnx"
        if (graph, exporter) not in self.seconds:
            self.seconds[graph, exporter] = write(GRAPHS[graph](), path, exporter)
        return path

    def read(self, graph: str, exporter: str) -> ReadModel:
        return read_model(self.path(graph, exporter))


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return Exports(tmp_path_factory.mktemp("exports"))
