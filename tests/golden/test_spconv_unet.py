# SPDX-License-Identifier: Apache-2.0
"""A small U-Net against what spconv computed on a GPU in float32 and float16, and in int8 against the oracle.

The stored results are only there when SCN_FX_DATA names the data folder; without it the same network runs
with random weights on a synthetic frame, against spconv on the CPU.
"""

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
import scn_fx
from scn_fx.capture import capture
from scn_fx.errors import CalibrationWarning
from scn_fx.exporting import export_onnx
from tests.capture.frames import frame as small_frame
from tests.capture.frames import randomise
from tests.oracle.dialect import read_network
from tests.oracle.frames import data_folder
from tests.oracle.network import run_network

DATA = data_folder()
SHAPE = [32, 32, 32]


class UNet(nn.Module):
    """Stem, one level below it, and a head on the concatenation of both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = spconv.SparseSequential(
            spconv.SubMConv3d(6, 16, 3, bias=False, indice_key="a"), nn.BatchNorm1d(16), nn.ReLU(),
            spconv.SubMConv3d(16, 16, 3, bias=False, indice_key="a"),
        )  # fmt: skip
        self.down = spconv.SparseConv3d(16, 32, 3, 2, padding=1, bias=False, indice_key="d")
        self.mid = spconv.SparseSequential(
            spconv.SubMConv3d(32, 32, 3, bias=False), nn.BatchNorm1d(32), nn.ReLU()
        )
        self.up = spconv.SparseInverseConv3d(32, 16, 3, bias=False, indice_key="d")
        self.head = spconv.SubMConv3d(32, 8, 1)

    def forward(self, features: torch.Tensor, indices: torch.Tensor, batch_size: int) -> Any:
        x = self.stem(spconv.SparseConvTensor(features, indices, SHAPE, batch_size))
        y = self.up(self.mid(self.down(x)))
        return self.head(x.replace_feature(torch.cat([y.features, x.features], 1)))


def with_statistics(model: UNet, features: torch.Tensor, indices: torch.Tensor, batch_size: int) -> UNet:
    """The model, its BatchNorms normalising with the statistics of a frame, as spconv ran it."""

    def store(norm: nn.BatchNorm1d, given: tuple[torch.Tensor, ...]) -> None:
        norm.running_mean.copy_(given[0].mean(0))
        norm.running_var.copy_(given[0].var(0, unbiased=False))

    hooks = [m.register_forward_pre_hook(store) for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    bias, model.head.bias = model.head.bias, None  # spconv's CPU kernels know none
    with torch.no_grad():
        model.eval()(features, indices, batch_size)
    model.head.bias = bias
    for hook in hooks:
        hook.remove()
    return model


def stored(precision: str) -> tuple[UNet, Any]:
    data = np.load(Path(str(DATA)) / "spconv_unet" / f"unet3d_{precision}.npz")
    model = UNet()
    weights = {key[2:]: torch.from_numpy(data[key]).float() for key in data.files if key.startswith("w.")}
    model.load_state_dict({k: v.long() if k.endswith("tracked") else v for k, v in weights.items()})
    args = torch.from_numpy(data["features"]).float(), torch.from_numpy(data["indices"]), 4
    return with_statistics(model, *args), data


if DATA is not None:

    @pytest.mark.parametrize("precision", ["float32", "float16"])
    def test_it_computes_what_spconv_computed_on_a_gpu(precision: str, tmp_path: Path) -> None:
        model, data = stored(precision)
        features, indices = torch.from_numpy(data["features"]).float(), torch.from_numpy(data["indices"])
        graph = capture(model, (features, indices, 4))
        expected, tolerance = data["out_features"].astype(np.float32), float(data["atol_out"])
        np.testing.assert_array_equal(data["out_indices"], data["indices"])
        with torch.no_grad():
            assert np.abs(graph(features, indices)[0].numpy() - expected).max() <= tolerance


@pytest.fixture(scope="module")
def network() -> tuple[UNet, torch.Tensor, torch.Tensor]:
    if DATA is not None:
        model, data = stored("float32")
        return model, torch.from_numpy(data["features"]), torch.from_numpy(data["indices"])
    torch.manual_seed(0)
    features, indices = small_frame(6, (32, 32, 32), 3000, batch=4)
    return randomise(UNet()), features, indices  # type: ignore[return-value]


@pytest.mark.parametrize("dialect", ["libspconv", "scn_fx"])
def test_its_int8_has_the_same_bits_in_engine_graph_and_oracle(
    network: tuple[UNet, torch.Tensor, torch.Tensor], dialect: str, tmp_path: Path
) -> None:
    model, features, indices = network
    graph = capture(model, (features, indices, 4))
    features = features.half().float()
    with torch.no_grad():
        exact, _ = graph(features, indices)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)
            quant.calibrate(graph, [(features, indices)], progress=False)
        export_onnx(graph, tmp_path / "scn.onnx", dialect=dialect)
        expected, _ = graph(features, indices)
    noise = (expected - exact).square().sum() / exact.square().sum()
    assert -10 * float(noise.log10()) > 25  # dB
    values, sites = scn_fx.Engine(tmp_path / "scn.onnx")(features.numpy(), indices.numpy())
    np.testing.assert_array_equal(values, expected.numpy())
    np.testing.assert_array_equal(sites, indices.numpy())
    file = read_network(tmp_path / "scn.onnx", dialect)
    (oracle,) = run_network(file, features.numpy(), indices.numpy()).outputs
    np.testing.assert_array_equal(values, oracle.values)
