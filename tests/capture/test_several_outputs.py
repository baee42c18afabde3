# SPDX-License-Identifier: Apache-2.0
"""Several outputs of one run: levels of an encoder beside its dense map."""

from __future__ import annotations

from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import fx, nn

from scn_fx.capture import capture
from scn_fx.errors import CaptureError
from scn_fx.graph import layers
from scn_fx.graph_outputs import graph_results, listed
from tests.capture.frames import GRID, frame, ordered, randomise, relative


def block(inputs: int, outputs: int, key: str, stride: int = 1) -> Any:
    """Convolution, BatchNorm and ReLU, as OpenPCDet's `post_act_block` makes them."""
    conv = (
        spconv.SubMConv3d(inputs, outputs, 3, bias=False, indice_key=key)
        if stride == 1
        else spconv.SparseConv3d(inputs, outputs, 3, stride, padding=1, bias=False, indice_key=key)
    )
    return spconv.SparseSequential(conv, nn.BatchNorm1d(outputs), nn.ReLU())


class Residual(spconv.SparseModule):
    """Two convolutions on one set of sites and what went in, added up."""

    def __init__(self, channels: int, key: str) -> None:
        super().__init__()
        self.conv1 = spconv.SubMConv3d(channels, channels, 3, bias=False, indice_key=key)
        self.bn1 = nn.BatchNorm1d(channels)
        self.relu = nn.ReLU()
        self.conv2 = spconv.SubMConv3d(channels, channels, 3, bias=False, indice_key=key)
        self.bn2 = nn.BatchNorm1d(channels)

    def forward(self, x: Any) -> Any:
        out = self.conv1(x)
        out = out.replace_feature(self.relu(self.bn1(out.features)))
        out = self.conv2(out)
        out = out.replace_feature(self.bn2(out.features))
        out = out.replace_feature(out.features + x.features)
        return out.replace_feature(self.relu(out.features))


class Levels(nn.Module):
    """An encoder in OpenPCDet's manner: a batch dictionary in, levels and a dense map in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_input = block(4, 8, "subm1")
        self.conv1 = Residual(8, "subm1")
        self.conv2 = spconv.SparseSequential(block(8, 16, "spconv2", 2), Residual(16, "subm2"))
        self.conv3 = spconv.SparseSequential(block(16, 16, "spconv3", 2), block(16, 16, "subm3"))
        self.neck = nn.Conv2d(48, 4, 3)

    def forward(self, batch_dict: dict[str, Any]) -> dict[str, Any]:
        x = spconv.SparseConvTensor(
            batch_dict["voxel_features"],
            batch_dict["voxel_coords"].int(),
            list(GRID),
            batch_dict["batch_size"],
        )
        x0 = self.conv_input(x)
        x1 = self.conv1(x0)
        x2 = self.conv2(x1)
        x3 = self.conv3(x2)
        dense = x3.dense()
        n, c, d, h, w = dense.shape
        bev = dense.view(n, c * d, h, w)
        batch_dict.update(
            encoded_spconv_tensor=x3,
            input=x,
            spatial_features=bev,
            neck=self.neck(bev),
            multi_scale_3d_features={"x_conv1": x1, "x_conv2": x2, "x_conv3": x3, "points": x1.features},
        )
        return batch_dict


LEVELS: list[Any] = [
    ("multi_scale_3d_features", "x_conv2"),
    "spatial_features",
    ("multi_scale_3d_features", "x_conv1"),
]


def model() -> nn.Module:
    torch.manual_seed(0)
    return randomise(Levels())


def args(features: torch.Tensor, indices: torch.Tensor) -> tuple[dict[str, Any]]:
    return ({"voxel_features": features, "voxel_coords": indices, "batch_size": 1},)


def test_a_list_gives_several_outputs_in_its_order() -> None:
    net, (features, indices) = model(), frame()
    graph = capture(net, args(features, indices), LEVELS)
    with torch.no_grad():
        expected = net(*args(features, indices))
    (second, second_sites), bev, (first, first_sites) = graph(features, indices)
    assert relative(bev, expected["spatial_features"]) <= 1e-5
    for level, found, sites in (("x_conv2", second, second_sites), ("x_conv1", first, first_sites)):
        found, sites = ordered(found, sites)
        wanted = expected["multi_scale_3d_features"][level]
        values, rows = ordered(wanted.features, wanted.indices)
        assert torch.equal(sites, rows)
        assert relative(found, values) <= 1e-5


def test_the_results_are_known_by_their_place() -> None:
    net, (features, indices) = model(), frame()
    graph = capture(net, args(features, indices), LEVELS)
    found = graph_results(graph)
    assert [(result.position, result.indices) for result in found] == [(0, 1), (2, None), (3, 4)]
    values = listed(graph(features, indices))
    assert [values[result.position].shape[1] for result in found] == [16, 48, 8]


def test_what_no_output_needs_is_left_out() -> None:
    net, (features, indices) = model(), frame()
    graph = capture(net, args(features, indices), [LEVELS[2], "neck"][:1])
    assert [layer.name for layer in layers(graph)] == [
        "conv_input.0",
        "conv1.conv1",
        "conv1.conv2",
        "conv1.add",
    ]
    graph = capture(net, args(features, indices), [LEVELS[2], LEVELS[0]])
    assert not [layer.name for layer in layers(graph) if layer.name.startswith(("conv3", "dense", "neck"))]
    with pytest.raises(CaptureError, match=r"conv2d in module 'neck'"):
        capture(net, args(features, indices), [LEVELS[2], "neck"])


def test_a_list_of_one_is_that_output() -> None:
    net, (features, indices) = model(), frame()
    one = capture(net, args(features, indices), ["spatial_features"])
    assert torch.equal(
        one(features, indices), capture(net, args(features, indices), "spatial_features")(features, indices)
    )


def test_bare_features_get_their_indices_among_others() -> None:
    net, (features, indices) = model(), frame()
    graph = capture(net, args(features, indices), ["spatial_features", ("multi_scale_3d_features", "points")])
    _, (values, sites) = graph(features, indices)
    assert len(values) == len(sites)
    assert torch.equal(sites, indices)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ([], "empty list"),
        ([0, 0], "names output=0 twice"),
        (["spatial_features", ["a", 1]], "in the list"),
        (["encoded_spconv_tensor", ("multi_scale_3d_features", "x_conv3")], r"are one value \(convolution"),
        (
            ["spatial_features", "input"],
            "output='input' is the model's input 'voxel_features' as it came",
        ),
        (["spatial_features", "nothing"], "no output='nothing'. Available: output="),
        (["spatial_features", "voxel_coords"], "is the model's input 'voxel_coords'"),
    ],
)
def test_outputs_that_cannot_be_together_are_refused_by_name(output: Any, text: str) -> None:
    with pytest.raises(CaptureError, match=text):
        capture(model(), args(*frame()), output)


class Early(nn.Module):
    """A value before its activation, and what the activation makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = spconv.SubMConv3d(4, 4, 3, bias=False, indice_key="a")
        self.second = spconv.SubMConv3d(4, 4, 3, bias=False, indice_key="a")
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
        x = self.conv(spconv.SparseConvTensor(features, indices, list(GRID), 1))
        before = x.features.clone()
        y = x.replace_feature(self.relu(x.features + features))
        return {"before": before, "after": y, "second": self.second(y), "activated": torch.relu(features)}


def test_an_output_that_another_one_reads_keeps_its_own_value() -> None:
    net, (features, indices) = Early().eval(), frame()
    graph = capture(net, (features, indices), ["before", "after", "second", "activated"])
    with torch.no_grad():
        expected = net(features, indices)
    found = graph(features, indices)
    assert [tuple(value.shape) for value, _ in found] == [(len(indices), 4)] * 4
    assert relative(found[0][0], expected["before"]) <= 1e-5
    assert relative(found[1][0], expected["after"].features) <= 1e-5
    assert relative(found[2][0], expected["second"].features) <= 1e-5
    assert torch.equal(found[3][0], expected["activated"])
    assert all(torch.equal(sites, indices) for _, sites in found)


def test_a_copy_of_the_graph_returns_the_same_outputs() -> None:
    import copy
    import pickle

    net, (features, indices) = model(), frame()
    graph = capture(net, args(features, indices), LEVELS)
    wanted = listed(graph(features, indices))
    for other in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert isinstance(other, fx.GraphModule)
        assert all(torch.equal(a, b) for a, b in zip(listed(other(features, indices)), wanted, strict=True))
