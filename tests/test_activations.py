# SPDX-License-Identifier: Apache-2.0
"""A network of other activations than ReLU, from spconv modules to the engine: the bits stay the same."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spconv.pytorch as spconv
import torch
from cumm import tensorview as tv
from torch import nn

import quant
import scn_fx
from scn_fx.errors import CalibrationWarning, ExportError, OnnxError
from scn_fx.exporting import export_onnx
from scn_fx.files.onnx_models import read_model
from scn_fx.graph import layers
from tests.capture.frames import frame, relative, sparse
from tests.oracle import builder
from tests.oracle.dialect import read_network
from tests.oracle.network import run_network


class Network(nn.Module):
    """Activations behind a BatchNorm, fused by spconv, behind an addition, and alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = spconv.SubMConv3d(4, 16, 3, bias=False, indice_key="a")
        self.norm = nn.BatchNorm1d(16)
        self.silu = nn.SiLU(inplace=True)
        self.second = spconv.SubMConv3d(16, 16, 3, bias=False, indice_key="a")
        self.second.act_type = tv.gemm.Activation.LeakyReLU
        self.second.act_alpha = 0.2
        self.third = spconv.SubMConv3d(16, 16, 3, bias=False, indice_key="a")
        self.leaky = nn.LeakyReLU(0.1)
        self.down = spconv.SparseConv3d(16, 32, 3, 2, padding=1, bias=False)
        self.alone = nn.SiLU()
        self.last = spconv.SubMConv3d(32, 8, 3, bias=False)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        x = x.replace_feature(self.silu(self.norm(x.features)))
        y = self.third(self.second(x))
        y = y.replace_feature(self.leaky(y.features + x.features))
        y = self.down(y)
        y = y.replace_feature(self.alone(y.features) + y.features)
        return self.last(y).dense()


@pytest.fixture(scope="module")
def model() -> Network:
    return Network().eval()


def captured(model: Network) -> torch.fx.GraphModule:
    return scn_fx.capture(model, (sparse(*frame()),))


@pytest.fixture(scope="module")
def int8(model: Network) -> torch.fx.GraphModule:
    graph = captured(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        quant.calibrate(graph, [frame(seed=seed) for seed in (0, 1)], method="mse", progress=False)
    return graph


def test_capture_fuses_them(model: Network) -> None:
    found = layers(captured(model))
    fused = {
        layer.name: (layer.activation, layer.activation_parameter) for layer in found if layer.spec.fuses
    }
    assert fused == {
        "first": ("SiLU", 0.0),
        "second": ("LeakyReLU", pytest.approx(0.2)),
        "third": ("None", 0.0),
        "add": ("LeakyReLU", 0.1),
        "down": ("None", 0.0),
        "add_1": ("None", 0.0),
        "last": ("None", 0.0),
    }
    assert [layer.name for layer in found if layer.kind == "silu"] == ["alone"]


def test_the_float_graph_is_the_model(model: Network) -> None:
    """spconv's CPU kernels do not know activations that its layers fuse: a module does it instead."""
    args = frame(seed=3)
    unfused = Network().eval()
    unfused.second.act_type = tv.gemm.Activation.None_
    unfused.second.register_forward_hook(
        lambda module, inputs, y: y.replace_feature(nn.functional.leaky_relu(y.features, 0.2))
    )
    with torch.no_grad():
        assert relative(captured(model)(*args), unfused(sparse(*args))) < 1e-5


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
def test_engine_graph_and_oracle_agree(
    model: Network, int8: torch.fx.GraphModule, precision: str, exporter: str, tmp_path: Path
) -> None:
    graph, path = int8 if precision == "int8" else captured(model), tmp_path / "scn.onnx"
    export_onnx(graph, path, exporter, "scn_fx")
    network = read_network(path, "scn_fx")
    found = {node.name: node for node in network.nodes}
    assert found["first"].attributes["activation"] == "SiLU" and "alpha" not in found["first"].attributes
    assert found["second"].attributes["alpha"] == pytest.approx(0.2)
    assert found["leaky"].op_type == "LeakyRelu" and found["alone"].op_type == "Silu"
    assert read_model(path)["metadata"]["scn_fx.dialect"] == "scn_fx"

    features, indices = frame(seed=2)
    rounded = features.half().float()  # as the engine does
    engine = scn_fx.Engine(path, precision="fp32" if precision == "fp32" else None)
    dense = engine(rounded.numpy(), indices.numpy())
    with torch.no_grad():
        of_graph = graph(rounded, indices).numpy()
    oracle = run_network(
        network, rounded.numpy(), indices.numpy(), precision="fp32" if precision == "fp32" else None
    )
    if precision == "int8":
        np.testing.assert_array_equal(dense, of_graph)
    assert np.abs(dense - of_graph).max() <= 2e-2 * np.abs(of_graph).max()
    assert np.abs(dense - oracle.dense).max() <= (2e-2 if precision == "fp16" else 1e-5) * np.abs(dense).max()


def test_the_files_graph_is_the_same(model: Network, int8: torch.fx.GraphModule, tmp_path: Path) -> None:
    from scn_fx.runtime.file_graph import file_graph

    export_onnx(int8, tmp_path / "scn.onnx", "torchscript", "scn_fx")
    args = frame(seed=2)
    again = file_graph(tmp_path / "scn.onnx").graph
    with torch.no_grad():
        assert relative(again(*args), captured(model)(*args)) < 1e-3  # the file's weights are float16
    parameters = [layer.activation_parameter for layer in layers(again) if layer.fused.parameter]
    assert parameters == [pytest.approx(0.2), pytest.approx(0.1)]


def test_libspconv_has_none_of_them(model: Network, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'first\.silu'.*no form of silu.*dialect=\"scn_fx\""):
        export_onnx(captured(model), tmp_path / "scn.onnx")
    assert not (tmp_path / "scn.onnx").exists()


def test_view_and_options_are_of_one_dialect(model: Network, tmp_path: Path) -> None:
    graph = captured(model)
    view = scn_fx.onnx_view(graph, dialect="scn_fx")
    with pytest.raises(Exception, match="Give onnx_view and export_options the same dialect"):
        torch.onnx.export(view, (torch.rand(9, 4),), tmp_path / "a.onnx", **scn_fx.export_options(graph))
    for call in (scn_fx.onnx_view, scn_fx.export_options):
        with pytest.raises(ExportError, match="dialect must be 'libspconv' or 'scn_fx', got 'onnx'"):
            call(graph, dialect="onnx")


def _file(**attributes: Any) -> bytes:
    geometry = {"input_shape": (4, 5, 6), "output_shape": (4, 5, 6), "subm": True}
    weight = np.ones((1, 1, 1, 1, 1), np.float16)
    return builder.build_onnx(
        builder.convolution("a", "features", "a", weight, **geometry),
        builder.convolution("b", "a", "b", weight, **geometry, activation="LeakyReLU", **attributes),
        builder.node("LeakyRelu", "c", ["b"], "c", **attributes),
    )


def test_a_slope_that_is_absent_is_torchs() -> None:
    features, sites = np.full((1, 1), -2.0, np.float32), np.zeros((1, 4), np.int32)
    found, _ = scn_fx.Engine(_file(), precision="fp32")(features, sites)
    expected = nn.functional.leaky_relu(nn.functional.leaky_relu(torch.tensor(-2.0)))
    assert found[0, 0] == expected.numpy()


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        (float("nan"), r"'b': alpha of LeakyReLU must be a finite number, the file has nan"),
        (float("inf"), r"'b': alpha of LeakyReLU must be a finite number, the file has inf"),
        (1, r"'b': attribute 'alpha' must be a float"),
    ],
)
def test_slopes_of_files_are_checked(alpha: float, message: str) -> None:
    with pytest.raises(OnnxError, match=message):
        scn_fx.Engine(_file(alpha=alpha))


def test_the_oracle_tells_the_dialects_apart() -> None:
    assert read_network(_file(alpha=0.5), "scn_fx").nodes[1].attributes["alpha"] == 0.5
    with pytest.raises(AssertionError, match="b: libspconv has no"):
        read_network(_file(alpha=0.5))
