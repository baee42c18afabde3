# SPDX-License-Identifier: Apache-2.0
"""Whole encoders: counts, names, shared maps, and agreement with spconv."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from scn_fx.capture import capture
from scn_fx.graph import layers, operator_name
from scn_fx.zoo import CenterPointEncoder, SecondEncoder, SecondResEncoder
from tests.capture.frames import frame, ordered, randomise, relative

SMALL = (32, 40, 16)  # voxels along (x, y, z): the last level has z of 5 → 2 from 17 → 9 → 5 → 2
CHANNELS = (4, 6, 8, 10)


def small_frame(sites: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    return frame(5, (SMALL[2] + 1, SMALL[1], SMALL[0]), sites)


def tall(encoder: type, **options: object) -> torch.nn.Module:
    """A narrow encoder over a grid that is small, but tall enough for its last convolution."""
    channels = CHANNELS if encoder is CenterPointEncoder else (*CHANNELS, 12)
    return randomise(encoder(5, channels=channels, grid=(SMALL[0], SMALL[1], 40), **options))


def test_centerpoint_has_21_convolutions_and_8_additions_named_by_path() -> None:
    model = tall(CenterPointEncoder)
    graph = capture(model, model.arguments(*small_frame()))
    found = layers(graph)
    assert Counter(layer.kind for layer in found) == {
        "convolution": 21, "add": 8, "scatter_dense": 1, "reshape": 1,
    }  # fmt: skip
    names = [layer.name for layer in found]
    assert names[:4] == ["conv_input.0", "conv1.0.conv1", "conv1.0.conv2", "conv1.0.add"]
    assert names[-3:] == ["extra_conv.0", "dense", "dense.reshape"]
    assert len(set(names)) == len(names)
    add = found[3]
    assert add.activation == "ReLU"
    assert add.activation_name == "conv1.0.relu"
    assert [node.name for node in add.inputs] == ["conv1_0_conv2", "conv_input_0"]
    maps = Counter(operator_name(node) for node in graph.graph.nodes)
    assert (maps["subm_map"], maps["conv_map"]) == (4, 4)
    by_name = {layer.name: layer for layer in found}
    assert by_name["conv_input.0"].rulebook == by_name["conv1.1.conv2"].rulebook == "res0"
    assert by_name["conv2.0"].rulebook == "conv2.0"
    assert by_name["conv1.0.conv1"].activation == "ReLU"
    assert by_name["conv1.0.conv2"].activation == "None"
    assert all(layer.bias is not None for layer in found if layer.kind == "convolution")
    assert graph.meta["scn_fx"] == {
        "axes": "zyx", "ndim": 3, "features": "voxel_features", "indices": "coors", "calibration": None,
        "grid": None, "notes": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("encoder", "convolutions", "additions"), [(SecondEncoder, 12, 0), (SecondResEncoder, 21, 8)]
)
def test_openpcdet_style_encoders(encoder: type, convolutions: int, additions: int) -> None:
    model = tall(encoder)
    graph = capture(model, model.arguments(*small_frame()), output="encoded_spconv_tensor")
    kinds = Counter(layer.kind for layer in layers(graph))
    assert (kinds["convolution"], kinds["add"]) == (convolutions, additions)
    assert [node.name for node in graph.graph.nodes if node.op == "placeholder"] == [
        "voxel_features", "voxel_coords",
    ]  # fmt: skip


def test_the_dict_of_the_caller_is_not_touched() -> None:
    model = tall(SecondEncoder)
    (batch,) = model.arguments(*small_frame())
    keys = list(batch)
    capture(model, (batch,), output="encoded_spconv_tensor")
    assert list(batch) == keys


def test_centerpoint_agrees_with_spconv() -> None:
    model = tall(CenterPointEncoder, bias=False)
    features, indices = frame(5, (41, SMALL[1], SMALL[0]), 600)
    graph = capture(model, model.arguments(features, indices))
    with torch.no_grad():
        dense, levels = model(*model.arguments(features, indices))
    assert relative(graph(features, indices), dense) <= 1e-5
    for name, level in levels.items():
        graph = capture(model, model.arguments(features, indices), output=(1, name))
        found, sites = ordered(*graph(features, indices))
        wanted, wanted_sites = ordered(level.features, level.indices)
        assert torch.equal(sites, wanted_sites)
        assert relative(found, wanted) <= 1e-5


def test_second_agrees_with_spconv_and_takes_float_coordinates() -> None:
    model = tall(SecondEncoder)
    features, indices = frame(5, (41, SMALL[1], SMALL[0]), 400)
    args = ({"voxel_features": features, "voxel_coords": indices.float(), "batch_size": 1},)
    graph = capture(model, args, output="encoded_spconv_tensor")
    with torch.no_grad():
        expected = model(*args)["encoded_spconv_tensor"]
    found, sites = ordered(*graph(features, indices))
    wanted, wanted_sites = ordered(expected.features, expected.indices)
    assert torch.equal(sites, wanted_sites)
    assert relative(found, wanted) <= 1e-5


def test_biases_of_convolutions_before_batch_norm_are_folded() -> None:
    """spconv's CPU build has no bias; BatchNorm(conv + b) is BatchNorm with mean - b, which it can run."""
    model = tall(CenterPointEncoder, bias=True)
    features, indices = frame(5, (41, SMALL[1], SMALL[0]), 400)
    found = capture(model, model.arguments(features, indices))(features, indices)
    for block in (m for m in model.modules() if hasattr(m, "bn2")):
        for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            norm.running_mean -= conv.bias.detach()
            conv.bias = None
    with torch.no_grad():
        dense, _ = model(*model.arguments(features, indices))
    assert relative(found, dense) <= 1e-5
