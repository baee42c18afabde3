# SPDX-License-Identifier: Apache-2.0
"""The U-Nets and encoders of the zoo: what spconv computes, and the same bits in graph, engine and oracle."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

import quant
import scn_fx
from scn_fx.capture.outputs import output_paths, select
from scn_fx.errors import CalibrationWarning
from scn_fx.exporting import export_onnx
from scn_fx.graph import layers
from scn_fx.zoo import (
    HEDNetEncoder,
    LargeKernelEncoder,
    PointGroupUNet,
    SpUNet,
    UNetV2,
    demo_frame,
    randomise_weights,
)
from tests.capture.frames import ordered, relative
from tests.oracle.dialect import read_network
from tests.oracle.network import run_network

GRID = (32, 32, 24)
PAIRS: list[tuple[type, Any, dict[str, Any]]] = [
    (SpUNet, 0, {}),
    (PointGroupUNet, "semantic_scores", {}),
    (PointGroupUNet, "pt_offsets", {}),
    (UNetV2, "encoded_spconv_tensor", {}),
    (UNetV2, "point_features", {}),
    # spconv's CPU kernels lack a bias.
    (LargeKernelEncoder, "encoded_spconv_tensor", {"bias": False}),
    (HEDNetEncoder, "encoded_spconv_tensor", {"bias": False}),
]
PAIRS_OF = {made.__name__: number for number, (made, output, _) in enumerate(PAIRS) if output != "pt_offsets"}
IDS = [f"{made.__name__}-{output}" for made, output, _ in PAIRS]


def frame(channels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return demo_frame(seed, 250, grid=GRID, in_channels=channels)


@cache
def model(number: int) -> nn.Module:
    made, _, options = PAIRS[number]
    net: nn.Module = made(4, grid=GRID, **options)
    randomise_weights(net, *frame(4))
    return net


@cache
def graph(number: int) -> fx.GraphModule:
    return scn_fx.capture(model(number), model(number).arguments(*frame(4)), PAIRS[number][1])


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=IDS)
def test_the_graph_is_the_model(number: int) -> None:
    args = frame(4, seed=1)
    (path,) = output_paths(PAIRS[number][1])
    with torch.no_grad():
        expected = select(model(number)(*model(number).arguments(*args)), path, {})
    found = graph(number)(*args)
    values, sites = ordered(*found)
    if len(expected) == 2:
        wanted, wanted_sites = ordered(*expected)
        assert torch.equal(sites, wanted_sites)
    else:
        wanted, _ = ordered(expected[0], args[1])
    assert relative(values, wanted) < 2e-5


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=IDS)
def test_both_exporters_the_engine_and_the_oracle_have_its_int8_bits(number: int, tmp_path: Path) -> None:
    calibrated = graph(number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        quant.calibrate(calibrated, [frame(4)], method="max", progress=False)
    export_onnx(calibrated, tmp_path / "scn.onnx", "torchscript")
    export_onnx(calibrated, tmp_path / "dynamo.onnx", "dynamo")
    features, indices = (t.numpy() for t in frame(4, seed=1))
    features = features.astype(np.float16).astype(np.float32)
    values, sites = scn_fx.Engine(tmp_path / "scn.onnx")(features, indices)
    again, _ = scn_fx.Engine(tmp_path / "dynamo.onnx")(features, indices)
    np.testing.assert_array_equal(values, again)
    expected, rows = calibrated(torch.from_numpy(features), torch.from_numpy(indices))
    np.testing.assert_array_equal(values, expected.numpy())
    np.testing.assert_array_equal(sites, rows.numpy())
    (oracle,) = run_network(read_network(tmp_path / "scn.onnx"), features, indices).outputs
    np.testing.assert_array_equal(values, oracle.values)


@pytest.mark.parametrize(
    "made", dict.fromkeys(made for made, _, _ in PAIRS), ids=lambda made: made.__name__  # type: ignore[no-any-return]
)  # fmt: skip
def test_published_sizes_are_arguments_of_the_constructor(made: Any) -> None:
    parameters = sum(p.numel() for p in made(4, **made.published).parameters())
    assert parameters > 10 * sum(p.numel() for p in made(4).parameters())


def test_published_sizes_are_those_of_the_papers() -> None:
    """Convolutions of the published networks, as the originals have them."""
    import spconv.pytorch as spconv

    def convolutions(made: Any) -> int:
        layers = made(4, **made.published).modules()
        return sum(isinstance(layer, spconv.conv.SparseConvolution) for layer in layers)

    assert convolutions(UNetV2) == 28
    assert convolutions(LargeKernelEncoder) == 25


def test_what_becomes_of_concatenations_and_batch_norms() -> None:
    names = [layer.name for layer in layers(graph(PAIRS_OF["PointGroupUNet"])) if layer.spec.layer]
    branch = "unet.blocks.block0.conv_branch"
    assert names[:3] == ["input_conv.0", f"{branch}.0", f"{branch}.2"]
    assert "unet.blocks_tail.block0.conv_branch.2.part1" in names and names[-1] == "linear"
    names = [layer.name for layer in layers(graph(PAIRS_OF["HEDNetEncoder"])) if layer.spec.layer]
    assert "conv2.0.decoder_norm.0" in names  # it follows a sum that nothing else takes in
    names = [layer.name for layer in layers(graph(PAIRS_OF["LargeKernelEncoder"])) if layer.spec.layer]
    assert not any("bn" in name for name in names)  # both sides of the sum take it in
