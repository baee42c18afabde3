# SPDX-License-Identifier: Apache-2.0
"""Layers of mmcv.ops and copies of spconv 1.x are captured as those of spconv 2.x with the same weights."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.capture import capture
from scn_fx.errors import CaptureError
from scn_fx.graph import layers
from tests.capture import old_spconv
from tests.capture.frames import GRID, frame, ordered, randomise, relative

BOTH = (old_spconv, spconv)


class Encoder(nn.Module):
    """A residual block, a level, its inverse, a kernel of one offset, as mmdetection3d writes them."""

    def __init__(self, library: ModuleType | Any) -> None:
        super().__init__()
        sparse, bias = library, {"bias": False}
        self.library = library
        self.first = sparse.SparseSequential(
            sparse.SubMConv3d(4, 8, 3, indice_key="a", **bias), nn.BatchNorm1d(8), nn.ReLU()
        )
        self.second = sparse.SubMConv3d(8, 8, 3, indice_key="a", **bias)
        self.norm = nn.BatchNorm1d(8)
        self.down = sparse.SparseSequential(
            sparse.SparseConv3d(8, 8, 3, 2, padding=1, indice_key="d", **bias), nn.BatchNorm1d(8), nn.ReLU()
        )
        self.up = sparse.SparseInverseConv3d(8, 8, 3, indice_key="d", **bias)
        self.head = sparse.SubMConv3d(8, 4, 1, **bias)

    def forward(self, features: torch.Tensor, coors: torch.Tensor, batch_size: int) -> Any:
        x = self.library.SparseConvTensor(features, coors, list(GRID), batch_size)
        x = self.first(x)
        identity = x.features
        x = self.second(x)
        out = self.norm(x.features) + identity
        x = x.replace_feature(out) if self.library is spconv else assigned(x, out)
        low = self.down(x)
        return self.head(self.up(low)), low.dense()


def assigned(x: Any, features: torch.Tensor) -> Any:
    x.features = features
    return x


def pair() -> tuple[Encoder, Encoder]:
    """The same network of either library."""
    torch.manual_seed(0)
    old, new = (randomise(Encoder(library)) for library in BOTH)
    state = old.state_dict()
    for name, layer in new.named_modules():
        if isinstance(layer, spconv.conv.SparseConvolutionBase):
            weight = state[f"{name}.weight"].permute(4, 0, 1, 2, 3)
            if layer.conv1x1:  # spconv 2.x reads it as [in, out]
                weight = weight.reshape(layer.out_channels, -1).t().reshape(layer.weight.shape)
            state[f"{name}.weight"] = weight.contiguous()
    new.load_state_dict(state)
    return old.eval(), new.eval()  # type: ignore[return-value]


@pytest.mark.parametrize("output", [0, 1])
def test_the_graph_is_that_of_the_newer_library(output: int) -> None:
    old, new = pair()
    args = frame()
    graph = capture(old, (*args, 1), output)
    assert [layer.name for layer in layers(graph)] == [
        layer.name for layer in layers(capture(new, (*args, 1), output))
    ]
    with torch.no_grad():
        expected, found = new(*args, 1)[output], graph(*args)
    if output == 1:
        assert relative(found, expected) < 1e-6
        return
    found, sites = ordered(*found)
    wanted, wanted_sites = ordered(expected.features, expected.indices)
    assert torch.equal(sites, wanted_sites) and relative(found, wanted) < 1e-6


def test_the_library_is_left_as_it_was() -> None:
    before = old_spconv.SparseConvolution.forward, old_spconv.SparseConvTensor.dense
    old, _ = pair()
    capture(old, (*frame(), 1))
    assert (old_spconv.SparseConvolution.forward, old_spconv.SparseConvTensor.dense) == before
    with pytest.raises(RuntimeError, match="compiled code"):
        old(*frame(), 1)


def test_what_it_pools_is_refused_by_name() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = old_spconv.SubMConv3d(4, 4, 3), old_spconv.SparseMaxPool3d()

        def forward(self, features: torch.Tensor, coors: torch.Tensor) -> Any:
            return self.pool(self.conv(old_spconv.SparseConvTensor(features, coors, list(GRID), 1)))

    with pytest.raises(CaptureError, match=r"'pool' \(SparseMaxPool3d\) is a sparse layer of tests\.capture"):
        capture(Model().eval(), frame())
