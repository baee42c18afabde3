# SPDX-License-Identifier: Apache-2.0
"""spconv's pooling layers: captured, quantised around, exported and run."""

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
from scn_fx.errors import CalibrationWarning, CaptureError, ExportError
from scn_fx.exporting import export_onnx
from scn_fx.graph import layers, metadata
from scn_fx.runtime import Engine
from tests.capture.frames import (
    GRID,
    assert_same_as_spconv,
    flat_frame,
    frame,
    ordered,
    randomise,
    relative,
    sparse,
)
from tests.oracle import geometry, numerics
from tests.oracle.network import run_network


def subm(channels: int, out: int, key: str | None = None) -> Any:
    return spconv.SubMConv3d(channels, out, 3, bias=False, indice_key=key)


class Pooling(nn.Module):
    """A layer, a ReLU, what a test pools with, and a layer behind it."""

    def __init__(self, pool: nn.Module, back: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.relu, self.pool, self.last = subm(4, 8), nn.ReLU(), pool, subm(8, 6)
        self.back = back

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        x = self.pool(x.replace_feature(self.relu(x.features)))
        if self.back is not None:
            x = self.back(x)
        return self.last(x)


def _model(pool: nn.Module, back: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    model = Pooling(pool, back)
    randomise(model)
    return model.eval()


MAXIMA = {
    "of two": {"kernel_size": 2, "stride": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
    "of its own stride": {"kernel_size": (1, 2, 3), "stride": None},
    "dilated": {"kernel_size": 3, "stride": 1, "padding": 2, "dilation": 2},
}


@pytest.mark.parametrize("options", MAXIMA.values(), ids=MAXIMA.keys())
def test_a_maximum_is_spconvs(options: dict[str, Any]) -> None:
    model, (features, indices) = _model(spconv.SparseMaxPool3d(**options)), frame()
    graph = capture(model, (sparse(features, indices),))
    assert [layer.kind for layer in layers(graph)] == ["convolution", "pool", "convolution"]
    assert_same_as_spconv(graph, model, features, indices)


def test_an_inverse_convolution_undoes_a_pooling_layer() -> None:
    pool = spconv.SparseMaxPool3d(2, stride=2, indice_key="down")
    back = spconv.SparseInverseConv3d(8, 8, 2, indice_key="down", bias=False)
    model, (features, indices) = _model(pool, back), frame()
    graph = capture(model, (sparse(features, indices),))
    assert_same_as_spconv(graph, model, features, indices)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = spconv.SubMConv2d(4, 8, 3, bias=False)
        self.pool = spconv.SparseMaxPool2d(2, stride=2)
        self.last = spconv.SubMConv2d(8, 6, 3, bias=False)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        return self.last(self.pool(x.replace_feature(torch.relu(x.features))))


def test_pillars() -> None:
    model, (features, indices) = randomise(Flat()).eval(), flat_frame(4, GRID[1:], 80)
    x = spconv.SparseConvTensor(features, indices, list(GRID[1:]), 1)
    graph = capture(model, (x,))
    with torch.no_grad():
        expected = model(spconv.SparseConvTensor(features, indices, list(GRID[1:]), 1))

    def in_order(values: torch.Tensor, sites: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return ordered(values, torch.cat([sites[:, :1], torch.zeros_like(sites[:, :1]), sites[:, 1:]], 1))

    (found, sites), (wanted, wanted_sites) = (
        in_order(*graph(features, indices)),
        in_order(expected.features, expected.indices),
    )
    assert torch.equal(sites, wanted_sites)
    assert relative(found, wanted) <= 1e-5


def test_a_mean_counts_the_neighbours_that_there_are() -> None:
    """spconv has no mean without a GPU."""
    features, indices = frame()
    model = _model(spconv.SparseAvgPool3d(2, stride=2))
    graph = capture(model, (sparse(features, indices),), output="pool")
    pooled, sites = graph(features, indices)
    before = capture(model, (sparse(features, indices),), output="first")
    x = torch.relu(before(features, indices)[0]).numpy()
    out = tuple((n - 2) // 2 + 1 for n in GRID)
    wanted_sites, kernel_map = geometry.strided_map(
        indices.numpy(), out, (2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1)
    )
    assert np.array_equal(sites.numpy(), wanted_sites)
    assert np.array_equal(pooled.numpy(), numerics.pool(x, kernel_map, "mean"))


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_int8_engine_graph_and_oracle_have_the_same_bits(kind: str, exporter: str, tmp_path: Path) -> None:
    features, indices = frame()
    pool = spconv.SparseMaxPool3d(3, 2, 1) if kind == "max" else spconv.SparseAvgPool3d(3, 2, 1)
    graph = capture(_model(pool), (sparse(features, indices),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        quant.calibrate(graph, [(features, indices)])
    path = tmp_path / "pool.onnx"
    export_onnx(graph, path, exporter, "scn_fx")
    made, sites = graph(features, indices)
    rows, found = Engine(path)(features.numpy(), indices.numpy())
    assert np.array_equal(found, sites.numpy())
    assert np.array_equal(rows.astype(np.float32), made.float().numpy())
    oracle = run_network(path, features.numpy().astype(np.float16), indices.numpy(), 1).outputs[0]
    assert np.array_equal(oracle.values.astype(np.float32), made.float().numpy())


def test_libspconv_refuses_it_by_name(tmp_path: Path) -> None:
    features, indices = frame()
    graph = capture(_model(spconv.SparseMaxPool3d(2, 2)), (sparse(features, indices),))
    with pytest.raises(ExportError, match="'pool': the dialect libspconv has no form of pool"):
        export_onnx(graph, tmp_path / "pool.onnx")


def test_a_key_that_is_taken() -> None:
    features, indices = frame()
    model = _model(spconv.SparseMaxPool3d(2, 2, indice_key="a"))
    model.first = subm(4, 8, "a")
    with pytest.raises(CaptureError, match=r"'pool' .* uses indice_key 'a', which another layer has taken"):
        capture(model, (sparse(features, indices),))


def test_a_maximum_below_zero_is_that_of_a_gpu_with_a_note() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.last = spconv.SparseMaxPool3d(2, 2), subm(4, 4)

        def forward(self, x: Any) -> Any:
            return self.last(self.pool(x))

    features, indices = frame()
    graph = capture(Bare().eval(), (sparse(features, indices),), output="pool")
    pooled, _ = graph(features, indices)
    assert float(pooled.min()) < 0
    assert any("takes the largest neighbour" in note for note in metadata(graph)["notes"])
