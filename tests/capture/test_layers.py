# SPDX-License-Identifier: Apache-2.0
"""Every kind of spconv layer: the captured graph computes what spconv computes."""

from __future__ import annotations

from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.capture import capture
from scn_fx.graph import layers, operator_name
from tests.capture.frames import (
    GRID,
    assert_same_as_spconv,
    frame,
    randomise,
    relative,
    sparse,
)


def output_padded(conv: Any) -> Any:
    """The subclasses of spconv take no output_padding; it is an attribute set afterwards."""
    conv.output_padding = [1, 0, 1]
    return conv


CHAINS: dict[str, Any] = {
    "subm": lambda: [spconv.SubMConv3d(4, 8, 3, bias=False)],
    "subm with odd padding and stride": lambda: [spconv.SubMConv3d(4, 8, 3, 2, padding=0, bias=False)],
    "subm dilated": lambda: [spconv.SubMConv3d(4, 8, 3, dilation=2, bias=False)],
    "subm unequal kernel": lambda: [spconv.SubMConv3d(4, 8, (3, 1, 5), bias=False)],
    "strided": lambda: [spconv.SparseConv3d(4, 8, 3, 2, padding=1, bias=False)],
    "strided unequal": lambda: [spconv.SparseConv3d(4, 8, (3, 1, 1), (2, 1, 1), bias=False)],
    "strided dilated": lambda: [spconv.SparseConv3d(4, 8, 3, 2, padding=2, dilation=2, bias=False)],
    "kernel 1, stride 2": lambda: [spconv.SparseConv3d(4, 8, 1, 2, bias=False)],
    "transposed": lambda: [spconv.SparseConvTranspose3d(4, 8, 3, 2, padding=1, bias=False)],
    "transposed with output padding": lambda: [
        output_padded(spconv.SparseConvTranspose3d(4, 8, 3, 2, 1, bias=False))
    ],
    "inverse": lambda: [
        spconv.SparseConv3d(4, 8, 3, 2, padding=1, bias=False, indice_key="down"),
        spconv.SubMConv3d(8, 8, 3, bias=False),
        spconv.SparseInverseConv3d(8, 4, 3, indice_key="down", bias=False),
    ],
    "1x1x1": lambda: [spconv.SubMConv3d(4, 8, 1, bias=False)],
    "1x1x1 padded": lambda: [spconv.SubMConv3d(4, 8, 1, padding=1, bias=False)],
    "1x1x1 with bias": lambda: [spconv.SubMConv3d(4, 8, 1)],
    "1x1x1 not submanifold": lambda: [spconv.SparseConv3d(4, 8, 1, bias=False)],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_a_layer_computes_what_spconv_computes(chain: str) -> None:
    torch.manual_seed(1)
    model = spconv.SparseSequential(*CHAINS[chain]()).eval()
    features, indices = frame(batch=2)
    graph = capture(model, (sparse(features, indices),))
    assert_same_as_spconv(graph, model, features, indices)


@pytest.mark.parametrize("chain", ["strided", "inverse", "transposed"])
def test_the_number_of_voxels_is_free(chain: str) -> None:
    model = spconv.SparseSequential(*CHAINS[chain]()).eval()
    graph = capture(model, (sparse(*frame(sites=20)),))
    for sites in (1, 2, 300):
        features, indices = frame(sites=sites, seed=sites)
        assert_same_as_spconv(graph, model, features, indices)
    empty, nowhere = graph(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.int32))
    assert empty.shape[0] == 0
    assert nowhere.shape == (0, 4)


def test_shared_keys_share_one_map_and_missing_keys_do_not() -> None:
    shared = [spconv.SubMConv3d(4, 4, 3, bias=False, indice_key="a") for _ in range(3)]
    alone = [spconv.SubMConv3d(4, 4, 3, bias=False) for _ in range(2)]
    graph = capture(spconv.SparseSequential(*shared, *alone).eval(), (sparse(*frame()),))
    assert [layer.rulebook for layer in layers(graph)] == ["a", "a", "a", "3", "4"]
    maps = [node for node in graph.graph.nodes if operator_name(node) == "subm_map"]
    assert len(maps) == 3
    assert len({layer.node.args[3] for layer in layers(graph)}) == 3


def test_one_key_in_two_branches_gives_two_rulebooks() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left = spconv.SparseConv3d(4, 4, 3, 2, padding=1, bias=False, indice_key="down")
            self.right = spconv.SparseConv3d(4, 4, 1, 2, bias=False, indice_key="down")

        def forward(self, x: Any) -> Any:
            return self.left(x).dense(), self.right(x)

    graph = capture(Branches().eval(), (sparse(*frame()),), output=1)
    assert [layer.rulebook for layer in layers(graph)] == ["down_1"]


def test_strided_convolutions_over_the_same_sites_can_be_added() -> None:
    class Downsample(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = spconv.SparseConv3d(4, 8, 3, 2, padding=1, bias=False)
            self.skip = spconv.SparseConv3d(4, 8, 3, 2, padding=1, bias=False)

        def forward(self, x: Any) -> Any:
            return self.main(x) + self.skip(x)

    model, (features, indices) = Downsample().eval(), frame()
    graph = capture(model, (sparse(features, indices),))
    assert [layer.kind for layer in layers(graph)] == ["convolution", "convolution", "add"]
    assert layers(graph)[0].rulebook == layers(graph)[1].rulebook
    assert_same_as_spconv(graph, model, features, indices)


def test_the_fused_activation_of_a_convolution_is_captured() -> None:
    from cumm import tensorview as tv

    conv = spconv.SubMConv3d(4, 8, 3, bias=False)
    features, indices = frame()
    graph = capture(spconv.SparseSequential(conv).eval(), (sparse(features, indices),))
    plain, _ = graph(features, indices)
    conv.act_type = tv.gemm.Activation.ReLU
    graph = capture(spconv.SparseSequential(conv).eval(), (sparse(features, indices),))
    assert layers(graph)[0].activation == "ReLU"
    assert torch.equal(graph(features, indices)[0], plain.relu())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_folds_exactly(affine: bool, bias: bool) -> None:
    conv = spconv.SubMConv3d(4, 8, 3, bias=bias)
    norm = nn.BatchNorm1d(8, eps=1e-3, affine=affine)
    randomise(norm)
    features, indices = frame()
    example = (sparse(features, indices),)
    folded = capture(spconv.SparseSequential(conv, norm).eval(), example)
    (layer,) = layers(folded)
    assert layer.bias is not None
    unfused, sites = capture(spconv.SparseSequential(conv).eval(), example)(features, indices)
    with torch.no_grad():
        expected = norm.double()(unfused.double())
    found, found_sites = folded(features, indices)
    assert torch.equal(found_sites, sites)
    assert relative(found.double(), expected) <= 1e-6


def test_a_weight_used_twice_is_folded_for_each_use() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = spconv.SubMConv3d(4, 4, 3, bias=False, indice_key="a")
            self.norm1, self.norm2 = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

        def forward(self, x: Any) -> Any:
            x = self.conv(x)
            x = x.replace_feature(self.norm1(x.features))
            x = self.conv(x)
            x = x.replace_feature(self.norm2(x.features))
            return self.conv(x)

    model, (features, indices) = Shared(), frame()
    randomise(model)
    before = model.conv.weight.detach().clone()
    graph = capture(model, (sparse(features, indices),))
    first, second, third = layers(graph)
    assert [layer.name for layer in (first, second, third)] == ["conv", "conv_1", "conv_2"]
    assert torch.equal(third.weight, before)
    assert torch.equal(model.conv.weight, before)
    assert not torch.equal(first.weight, second.weight)
    assert third.bias is None
    assert_same_as_spconv(graph, model, features, indices)


def test_dense_maps_and_their_layout() -> None:
    class Bev(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = spconv.SparseConv3d(4, 6, 3, 2, padding=1, bias=False)
            self.to_dense = spconv.ToDense()

        def forward(self, x: Any) -> Any:
            x = self.conv(x)
            plain = x.dense()
            n, c, d, h, w = plain.shape
            last = x.dense(channels_first=False)
            turned = self.to_dense(x).permute(0, 1, 4, 2, 3).contiguous().view(n, c * w, d, h)
            return {
                "view": plain.view(n, c * d, h, w),
                "flatten": plain.flatten(1, 2),
                "reshape": plain.reshape(n, -1),
                "channels last": last,
                "turned": turned,
                "transposed": plain.transpose(1, -1).unsqueeze(0).squeeze(0),
            }

    model, (features, indices) = Bev().eval(), frame(batch=2)
    tensor = sparse(features, indices)
    with torch.no_grad():
        expected = model(tensor)
    names = {
        "view": ["conv", "dense", "dense.reshape"],
        "flatten": ["conv", "dense", "dense.reshape"],
        "reshape": ["conv", "dense", "dense.reshape"],
        "channels last": ["conv", "dense", "dense.transpose"],
        "turned": ["conv", "to_dense", "transpose", "reshape"],
        "transposed": ["conv", "dense", "dense.transpose"],
    }
    for key, wanted in expected.items():
        graph = capture(model, (tensor,), output=key)
        assert relative(graph(features, indices), wanted) <= 1e-5, key
        assert [layer.name for layer in layers(graph)] == names[key]
        assert graph(features[:0], indices[:0]).abs().max() == 0


def test_axes_are_recorded() -> None:
    model = spconv.SparseSequential(spconv.SubMConv3d(4, 4, 3, bias=False), spconv.ToDense()).eval()
    graph = capture(model, (sparse(*frame()),), axes="xyz")
    assert graph.meta["scn_fx"]["axes"] == "xyz"
    assert layers(graph)[1].format == "xyz"
    assert layers(graph)[1].spatial_shape == list(GRID)


def test_features_may_be_assigned_as_in_spconv_1() -> None:
    class Old(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = spconv.SubMConv3d(4, 4, 3, bias=False)

        def forward(self, x: Any) -> Any:
            x = self.conv(x)
            x.features = nn.functional.relu(x.features)
            return x

    (layer,) = layers(capture(Old().eval(), (sparse(*frame()),)))
    assert layer.activation == "ReLU"


def test_tables_of_spconv() -> None:
    class Tables(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fork = spconv.ConcatTable()
            self.fork.add(spconv.SubMConv3d(4, 4, 3, bias=False, indice_key="a"))
            self.fork.add(spconv.SubMConv3d(4, 4, 3, bias=False, indice_key="a"))
            self.join = spconv.AddTable()

        def forward(self, x: Any) -> Any:
            return self.join(self.fork(x))

    model, (features, indices) = Tables().eval(), frame()
    graph = capture(model, (sparse(features, indices),))
    assert [layer.kind for layer in layers(graph)] == ["convolution", "convolution", "add"]
    assert_same_as_spconv(graph, model, features, indices)
