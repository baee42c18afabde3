# SPDX-License-Identifier: Apache-2.0
"""Layers of two dimensions and of one: the captured graph computes what spconv computes, on its indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.capture import capture
from scn_fx.errors import CaptureError
from scn_fx.graph import layers, metadata
from tests.capture.frames import flat_frame, randomise, relative

PLANE = (19, 23)
LINE = (61,)


def tensor(features: torch.Tensor, indices: torch.Tensor, grid: tuple[int, ...]) -> Any:
    return spconv.SparseConvTensor(features, indices, list(grid), 2)


def output_padded(conv: Any) -> Any:
    """The subclasses of spconv take no output_padding; it is an attribute set afterwards."""
    conv.output_padding = [1, 0]
    return conv


CHAINS: dict[str, tuple[tuple[int, ...], Callable[[], list[Any]]]] = {
    "subm": (PLANE, lambda: [spconv.SubMConv2d(4, 8, 3, bias=False)]),
    "subm dilated, asymmetric": (
        PLANE, lambda: [spconv.SubMConv2d(4, 8, (3, 5), dilation=(2, 1), bias=False)],
    ),
    "subm with stride and padding": (PLANE, lambda: [spconv.SubMConv2d(4, 8, 3, 2, padding=0, bias=False)]),
    "strided": (PLANE, lambda: [spconv.SparseConv2d(4, 8, 3, 2, padding=1, bias=False)]),
    "strided asymmetric": (
        PLANE, lambda: [spconv.SparseConv2d(4, 8, (1, 5), (3, 2), padding=(0, 1), bias=False)],
    ),
    "strided dilated": (PLANE, lambda: [spconv.SparseConv2d(4, 8, 3, 2, 2, dilation=2, bias=False)]),
    "kernel 1, stride 2": (PLANE, lambda: [spconv.SparseConv2d(4, 8, 1, 2, bias=False)]),
    "transposed": (PLANE, lambda: [spconv.SparseConvTranspose2d(4, 8, (3, 2), 2, padding=1, bias=False)]),
    "transposed with output padding": (
        PLANE, lambda: [output_padded(spconv.SparseConvTranspose2d(4, 8, 3, 2, 1, bias=False))],
    ),
    "inverse": (
        PLANE,
        lambda: [
            spconv.SparseConv2d(4, 8, (3, 5), (2, 1), padding=1, bias=False, indice_key="down"),
            spconv.SubMConv2d(8, 8, 3, bias=False),
            spconv.SparseInverseConv2d(8, 4, (3, 5), indice_key="down", bias=False),
        ],
    ),
    "1x1": (PLANE, lambda: [spconv.SubMConv2d(4, 8, 1, bias=False)]),
    "1x1 not submanifold": (PLANE, lambda: [spconv.SparseConv2d(4, 8, 1, bias=False)]),
    "1x1 with bias, padded": (PLANE, lambda: [spconv.SubMConv2d(4, 8, 1, padding=1)]),
    "BatchNorm, ReLU and a shared key": (
        PLANE,
        lambda: [
            *(spconv.SubMConv2d(4, 8, 3, bias=False, indice_key="a"), nn.BatchNorm1d(8), nn.ReLU()),
            *(spconv.SubMConv2d(8, 8, 3, bias=False, indice_key="a"), nn.BatchNorm1d(8), nn.ReLU()),
        ],
    ),
    "1D subm": (LINE, lambda: [spconv.SubMConv1d(4, 8, 5, dilation=2, bias=False)]),
    "1D strided": (LINE, lambda: [spconv.SparseConv1d(4, 8, 3, 2, padding=1, bias=False)]),
    "1D transposed": (LINE, lambda: [spconv.SparseConvTranspose1d(4, 8, 3, 2, padding=1, bias=False)]),
    "1D inverse": (
        LINE,
        lambda: [
            spconv.SparseConv1d(4, 8, 3, 3, bias=False, indice_key="down"),
            spconv.SparseInverseConv1d(8, 4, 3, indice_key="down", bias=False),
        ],
    ),
}  # fmt: skip


def chain(name: str) -> tuple[tuple[int, ...], Any]:
    torch.manual_seed(1)
    grid, made = CHAINS[name]
    return grid, randomise(spconv.SparseSequential(*made()))


def ordered(features: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = sorted(range(len(indices)), key=lambda row: indices[row].tolist())
    return features[rows], indices[rows]


def assert_same_as_spconv(graph: Any, model: Any, grid: tuple[int, ...], sites: int, seed: int = 0) -> None:
    features, indices = flat_frame(4, grid, sites, batch=2, seed=seed)
    with torch.no_grad():
        expected = model(tensor(features, indices, grid))
    found, at = ordered(*graph(features, indices))
    wanted, wanted_at = ordered(expected.features, expected.indices)
    assert at.dtype == torch.int32
    assert torch.equal(at, wanted_at)
    assert found.shape == wanted.shape
    assert not len(at) or relative(found, wanted) <= 1e-5


@pytest.mark.parametrize("name", CHAINS)
def test_a_layer_computes_what_spconv_computes(name: str) -> None:
    grid, model = chain(name)
    graph = capture(model, (tensor(*flat_frame(4, grid, 120, batch=2), grid),))
    assert metadata(graph)["ndim"] == len(grid)
    for sites in (1, 2, 40, 200):
        assert_same_as_spconv(graph, model, grid, sites, seed=sites)


@pytest.mark.parametrize("name", ["strided", "inverse", "transposed", "1D strided"])
def test_a_frame_without_voxels_has_indices_of_the_same_columns(name: str) -> None:
    grid, model = chain(name)
    graph = capture(model, (tensor(*flat_frame(4, grid, 120), grid),))
    features, indices = graph(torch.zeros(0, 4), torch.zeros(0, len(grid) + 1, dtype=torch.int32))
    assert features.shape[0] == 0
    assert indices.shape == (0, len(grid) + 1)


class Dense(nn.Module):
    """A backbone from bare tensors to the dense map, as detectors call it."""

    def __init__(self, grid: tuple[int, ...], channels_first: bool = True) -> None:
        super().__init__()
        conv = {1: spconv.SparseConv1d, 2: spconv.SparseConv2d}[len(grid)]
        self.conv = conv(4, 6, 3, 2, padding=1, bias=False)
        self._grid, self._first = list(grid), channels_first

    def forward(self, features: torch.Tensor, coors: torch.Tensor, batch_size: int) -> torch.Tensor:
        x = spconv.SparseConvTensor(features, coors.int(), self._grid, batch_size)
        return self.conv(x).dense(self._first)


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("grid", [PLANE, LINE])
def test_a_dense_map_has_the_axes_of_the_network(grid: tuple[int, ...], channels_first: bool) -> None:
    model = Dense(grid, channels_first).eval()
    features, indices = flat_frame(4, grid, 100, batch=2)
    graph = capture(model, (features, indices, 2))
    with torch.no_grad():
        expected = model(features, indices, 2)
    found = graph(features, indices)
    assert found.shape == expected.shape
    assert relative(found, expected) <= 1e-5
    kinds = [layer.kind for layer in layers(graph)]
    assert kinds[:3] == ["convolution", "scatter_dense", "reshape"]
    assert [layer.name for layer in layers(graph)][:3] == ["conv", "dense", "dense.reshape"]


def test_dense_layers_behind_the_map_are_refused_with_advice() -> None:
    class Neck(Dense):
        def __init__(self) -> None:
            super().__init__(PLANE)
            self.neck = nn.Conv2d(6, 6, 3)

        def forward(self, features: torch.Tensor, coors: torch.Tensor, batch_size: int) -> Any:
            dense = super().forward(features, coors, batch_size)
            return self.neck(dense), dense

    args = (*flat_frame(4, PLANE, 100), 2)
    with pytest.raises(
        CaptureError, match=r"conv2d in module 'neck' \(Conv2d\).*output=1: tensor \[2, 6, 10, 12\]"
    ):
        capture(Neck().eval(), args)
    assert capture(Neck().eval(), args, output=1)(*args[:2]).shape == (2, 6, 10, 12)


class Mixed(nn.Module):
    """Gives a tensor of three dimensions to a layer of two, or the other way round."""

    def __init__(self, conv: Any, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.conv, self._grid = conv, list(grid)

    def forward(self, features: torch.Tensor, coors: torch.Tensor) -> Any:
        return self.conv(spconv.SparseConvTensor(features, coors, self._grid, 1))


@pytest.mark.parametrize(
    ("conv", "grid", "message"),
    [
        (
            lambda: spconv.SubMConv2d(4, 4, 3),
            (5, 6, 7),
            r"'conv' \(SubMConv2d\) .* of 2 .* sparse tensor of 3",
        ),
        (
            lambda: spconv.SparseConv3d(4, 4, 3),
            (6, 7),
            r"'conv' \(SparseConv3d\) .* of 3 .* sparse tensor of 2",
        ),
        (lambda: spconv.SubMConv4d(4, 4, 3), (6, 7), r"'conv' \(SubMConv4d\) .* of 4 dimensions.*time lag"),
        (lambda: spconv.SparseMaxPool2d(3), (5, 6, 7), r"'conv' \(SparseMaxPool2d\) .* of 2 .* tensor of 3"),
    ],
)
def test_layers_of_other_dimensions_are_refused(conv: Any, grid: tuple[int, ...], message: str) -> None:
    model = Mixed(conv(), grid).eval()
    with pytest.raises(CaptureError, match=message):
        capture(model, flat_frame(4, grid, 40))


def test_a_frame_of_the_wrong_width_is_refused() -> None:
    model = Dense(PLANE).eval()
    with pytest.raises(CaptureError):
        capture(model, (*flat_frame(4, (3, *PLANE), 40), 1))
    with pytest.raises(CaptureError, match=r"indices int32 \[N, 4\] \(of a 2D network \[N, 3\]"):
        capture(model, (torch.zeros(20, 5), torch.zeros(20, 3), 1))


def test_two_dimensions_made_from_three_are_refused_by_name() -> None:
    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = spconv.SubMConv3d(4, 4, 3, bias=False)
            self.second = spconv.SubMConv2d(4, 4, 3, bias=False)

        def forward(self, features: torch.Tensor, coors: torch.Tensor) -> Any:
            x = self.first(spconv.SparseConvTensor(features, coors, [3, *PLANE], 1))
            flat = x.indices[:, [0, 2, 3]].contiguous()
            y = self.second(spconv.SparseConvTensor(x.features, flat, list(PLANE), 1))
            return x, y

    args = flat_frame(4, (3, *PLANE), 60)
    with pytest.raises(
        CaptureError, match=r"index in the model's own forward \(Flattened\) is not supported"
    ):
        capture(Flattened().eval(), args, output=1)
    assert capture(Flattened().eval(), args, output=0)(*args)[1].shape == args[1].shape


class SharedKey(nn.Module):
    """Hands the rulebooks of a tensor of three dimensions to one of two, whose layer has the same key."""

    def __init__(self, second: Any) -> None:
        super().__init__()
        self.first, self.second = (
            spconv.SparseConv3d(4, 4, 3, 2, padding=1, bias=False, indice_key="a"),
            second,
        )

    def forward(self, features: torch.Tensor, coors: torch.Tensor, pillars: torch.Tensor) -> Any:
        x = self.first(spconv.SparseConvTensor(features, coors, [3, *PLANE], 1))
        flat = spconv.SparseConvTensor(features, pillars, list(PLANE), 1)
        flat.indice_dict = x.indice_dict
        return self.second(flat)


def refused_with_both(model: nn.Module, message: str) -> None:
    features, indices = flat_frame(4, (3, *PLANE), 60)
    with pytest.raises(CaptureError, match=message):
        capture(model.eval(), (features, indices, indices[:, [0, 2, 3]].contiguous()))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            lambda: spconv.SubMConv2d(4, 4, 3, indice_key="a"),
            "uses indice_key 'a', which another layer has taken",
        ),
        (lambda: spconv.SparseInverseConv2d(4, 4, 3, indice_key="a"), r"has 3 dimension\(s\), but has 2"),
    ],
)
def test_a_key_of_another_dimension_is_refused(second: Any, message: str) -> None:
    refused_with_both(SharedKey(second()), message)


def test_one_key_of_submanifold_layers_in_both_dimensions_is_refused() -> None:
    class Both(SharedKey):
        def __init__(self) -> None:
            super().__init__(spconv.SubMConv2d(4, 4, 3, indice_key="a"))
            self.first = spconv.SubMConv3d(4, 4, (1, 3, 3), indice_key="a")

    refused_with_both(Both(), r"shares indice_key 'a' with a layer of 3 dimension\(s\), but has 2")


class UNet(nn.Module):
    """Pre-activation, a skip that is concatenated, and a Linear head, on pillars."""

    def __init__(self) -> None:
        super().__init__()
        self.first = spconv.SubMConv2d(4, 8, 3, bias=False, indice_key="a")
        self.norm = nn.BatchNorm1d(8)
        self.down = spconv.SparseConv2d(8, 12, 3, 2, padding=1, bias=False, indice_key="down")
        self.up = spconv.SparseInverseConv2d(12, 8, 3, bias=False, indice_key="down")
        self.merge = spconv.SubMConv2d(16, 8, 3, bias=False, indice_key="a")
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        active = x.replace_feature(torch.relu(self.norm(x.features)))
        up = self.up(self.down(active))
        merged = self.merge(up.replace_feature(torch.cat([x.features, up.features], 1)))
        return merged.replace_feature(self.head(merged.features))


def test_a_u_net_on_pillars() -> None:
    torch.manual_seed(3)
    model = randomise(UNet())
    graph = capture(model, (tensor(*flat_frame(4, PLANE, 120, batch=2), PLANE),))
    for sites in (40, 200):
        assert_same_as_spconv(graph, model, PLANE, sites, seed=sites)
