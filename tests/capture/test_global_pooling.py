# SPDX-License-Identifier: Apache-2.0
"""spconv's pooling over whole batch entries: captured, quantised around, exported, read back and run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

import quant
from scn_fx.capture import capture
from scn_fx.capture.eager import run_with_own_operators
from scn_fx.errors import CalibrationWarning, CaptureError, ExportError
from scn_fx.exporting import export_onnx
from scn_fx.graph import fingerprint, layers, metadata
from scn_fx.runtime import Engine
from scn_fx.runtime.file_graph import file_graph
from tests.capture.frames import flat_frame, frame, sparse
from tests.cli.conftest import invoke
from tests.oracle import numerics
from tests.oracle.network import run_network

POOLS = {"max": spconv.SparseGlobalMaxPool, "mean": spconv.SparseGlobalAvgPool}


class Classifier(nn.Module):
    """A layer, a ReLU, what a test pools with, and a head."""

    def __init__(self, pool: nn.Module, ndim: int = 3) -> None:
        super().__init__()
        layer = {1: spconv.SubMConv1d, 2: spconv.SubMConv2d, 3: spconv.SubMConv3d}[ndim]
        self.first, self.relu, self.pool = layer(4, 8, 3, bias=False), nn.ReLU(), pool
        self.head = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        return self.head(self.pool(x.replace_feature(self.relu(x.features))))


def _model(kind: str, ndim: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return Classifier(POOLS[kind](), ndim).eval()


def _rows(model: nn.Module, x: Any) -> torch.Tensor:
    """What the pooling layer reads."""
    features, _ = capture(model, (x,), output="relu", batch_size=int(x.batch_size))(x.features, x.indices)
    return features


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_values(kind: str, ndim: int) -> None:
    grid, batch = (30, 12, 13)[-ndim:], 3
    features, indices = flat_frame(4, grid, 20 if ndim == 1 else 300, batch)
    model, x = _model(kind, ndim), spconv.SparseConvTensor(features, indices, list(grid), batch)
    graph = capture(model, (x,), output="pool")
    assert [(layer.kind, layer.name) for layer in layers(graph)] == [
        ("convolution", "first"), ("global_pool", "pool"),
    ]  # fmt: skip
    made = graph(features, indices)
    rows = _rows(model, x).numpy()
    assert np.array_equal(made.numpy(), numerics.global_pool(rows, indices.numpy(), batch, kind))


def test_a_module_that_is_called_twice_and_one_in_a_forward() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (spconv.SubMConv3d(4, 4, 3, bias=False) for _ in range(2))
            self.pool = POOLS["max"]()

        def forward(self, x: Any) -> Any:
            y = self.a(x)
            return self.pool(y), self.pool(self.b(y)), POOLS["mean"]()(y)

    graph = capture(Several().eval(), (sparse(*frame(batch=2)),), output=[0, 1, 2])
    names = [layer.name for layer in layers(graph) if layer.kind == "global_pool"]
    assert names == ["pool", "pool_1", "global_pool"]
    assert all(made.shape == (2, 4) for made in graph(*frame(batch=2)))


def test_the_mean_of_all_channels_is_noted() -> None:
    features, indices = frame()
    said = {
        kind: metadata(capture(_model(kind), (sparse(features, indices),), output="pool")) for kind in POOLS
    }
    assert not said["max"]["notes"]
    (note,) = said["mean"]["notes"]
    assert note.startswith("'pool' (SparseGlobalAvgPool) gives the mean of every channel, [batch size,")


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_int8_engine_graph_and_oracle_have_the_same_bits(kind: str, exporter: str, tmp_path: Path) -> None:
    features, indices = frame(sites=1400, batch=2)
    graph = capture(_model(kind), (sparse(features, indices),), output="pool")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        quant.calibrate(graph, [(features, indices)])
    path = tmp_path / "pool.onnx"
    export_onnx(graph, path, exporter, "scn_fx")
    made = graph(features, indices)
    row = Engine(path)(features.numpy(), indices.numpy())
    assert made.shape == row.shape == (2, 8) and made.dtype == torch.float16
    assert np.array_equal(row, made.numpy())
    oracle = run_network(path, features.numpy().astype(np.float16), indices.numpy(), 2).outputs[0]
    assert np.array_equal(oracle.values, row)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_file_as_a_graph(exporter: str, tmp_path: Path) -> None:
    features, indices = frame(sites=600, batch=2)
    graph = capture(_model("mean"), (sparse(features, indices),), output="pool")
    path = tmp_path / "pool.onnx"
    export_onnx(graph, path, exporter, "scn_fx")
    again = file_graph(path).graph
    (last,) = [layer for layer in layers(again) if layer.kind == "global_pool"]
    assert (last.name, last.argument("kind"), last.batch_size) == ("pool", "mean", 2)
    wanted = graph(features, indices)
    assert torch.allclose(again(features, indices), wanted, rtol=1e-2, atol=1e-3)
    second = tmp_path / "again.onnx"
    export_onnx(again, second, exporter, "scn_fx")
    assert fingerprint(file_graph(second).graph) == fingerprint(again)


def test_inspect_shows_it(tmp_path: Path) -> None:
    graph = capture(_model("max"), (sparse(*frame()),), output="pool")
    path = tmp_path / "pool.onnx"
    export_onnx(graph, path, dialect="scn_fx")
    assert "SparseGlobalPool" in invoke("inspect", path).output


def test_libspconv_refuses_it_by_name(tmp_path: Path) -> None:
    graph = capture(_model("max"), (sparse(*frame()),), output="pool")
    with pytest.raises(ExportError, match="'pool': the dialect libspconv has no form of global_pool"):
        export_onnx(graph, tmp_path / "pool.onnx")


def test_the_head_behind_it_is_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=r"'head' \(Linear\) is not supported.*output='pool'"):
        capture(_model("max"), (sparse(*frame()),))


def test_a_batch_size_that_is_no_number() -> None:
    features, indices = frame()

    class Wrong(Classifier):
        def forward(self, x: Any) -> Any:
            y = self.first(x)
            y.batch_size = 1.0
            return self.pool(y)

    with pytest.raises(CaptureError, match=r"'pool' \(SparseGlobalMaxPool\): the batch size .* is a float"):
        capture(Wrong(POOLS["max"]()).eval(), (sparse(features, indices),))


@pytest.mark.parametrize("kind", POOLS)
def test_it_is_trained_with_the_own_operators(kind: str) -> None:
    model, data = _model(kind).train(), sparse(*frame(batch=2))
    logits = run_with_own_operators(model, data)
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())
        assert float(parameter.grad.abs().max()) > 0
