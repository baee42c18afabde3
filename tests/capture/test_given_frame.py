# SPDX-License-Identifier: Apache-2.0
"""Models whose forward computes grid, batch size or indices from the frame."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

import quant
from scn_fx.capture import capture
from scn_fx.errors import CaptureError, CaptureWarning, SiteError
from scn_fx.graph import layers, metadata
from scn_fx.input_grid import input_shape
from tests.capture.frames import GRID, frame, ordered, randomise, relative
from tests.capture.test_several_outputs import block

GIVEN: dict[str, Any] = {"batch_size": 2, "spatial_shape": GRID}


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A frame of two samples, sorted by sample as collate functions leave it; corners are occupied."""
    _, indices = frame(batch=2, seed=seed)
    corners = torch.tensor([[b, *(size - 1 for size in GRID)] for b in (0, 1)], dtype=torch.int32)
    indices = torch.unique(torch.cat([indices, corners]), dim=0)
    indices = indices[torch.argsort(indices[:, 0], stable=True)]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(indices), 4, generator=generator), indices


@torch.no_grad()
def offset2bincount(offset: torch.Tensor) -> torch.Tensor:
    start = torch.tensor([0], device=offset.device, dtype=torch.long)
    return torch.diff(offset, prepend=start)


@torch.no_grad()
def offset2batch(offset: torch.Tensor) -> torch.Tensor:
    counts = offset2bincount(offset)
    return torch.arange(len(counts), device=offset.device, dtype=torch.long).repeat_interleave(counts)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = block(4, 8, "stem"), block(8, 16, "down", 2)


class MinkUNet(Net):
    """As mmdetection3d's backbone with spconv."""

    def forward(self, voxel_features: torch.Tensor, coors: torch.Tensor) -> Any:
        spatial_shape = coors.max(0)[0][1:] + 1
        batch_size = int(coors[-1, 0]) + 1
        x = spconv.SparseConvTensor(voxel_features, coors, spatial_shape, batch_size)
        return self.down(self.stem(x))


class SpUNet(Net):
    """As Pointcept's: a dictionary of points, of which the forward makes indices."""

    def forward(self, input_dict: dict[str, torch.Tensor]) -> Any:
        grid_coord, feat, offset = (input_dict[key] for key in ("grid_coord", "feat", "offset"))
        batch = offset2batch(offset)
        sparse_shape = torch.add(torch.max(grid_coord, dim=0).values, 96).tolist()
        x = spconv.SparseConvTensor(
            features=feat,
            indices=torch.cat([batch.unsqueeze(-1).int(), grid_coord.int()], dim=1).contiguous(),
            spatial_shape=sparse_shape,
            batch_size=batch[-1].tolist() + 1,
        )
        return self.down(self.stem(x)).features


class Clamped(SpUNet):
    """With a least grid, and the indices cast together."""

    def forward(self, input_dict: dict[str, torch.Tensor]) -> Any:
        grid_coord, feat = input_dict["grid_coord"], input_dict["feat"]
        batch = offset2batch(input_dict["offset"])
        sparse_shape = torch.clamp(torch.max(grid_coord, dim=0).values + 1, 128)
        indices = torch.cat([batch.unsqueeze(-1), grid_coord], dim=1).int().contiguous()
        x = spconv.SparseConvTensor(feat, indices, sparse_shape.tolist(), batch[-1].tolist() + 1)
        return self.down(self.stem(x))


class Fsd(Net):
    """As SST's SimpleSparseUNet: asserts, and the batch size from the coordinates; a view needs it."""

    def forward(self, voxel_info: dict[str, torch.Tensor]) -> Any:
        coors = voxel_info["voxel_coors"]
        assert (coors >= 0).all(), "no site may be negative"
        assert coors.shape[0] > 0
        coors = coors.int()
        batch_size = coors[:, 0].max().item() + 1
        x = spconv.SparseConvTensor(voxel_info["voxel_feats"], coors, list(GRID), batch_size)
        dense = self.down(self.stem(x)).dense()
        return dense.view(batch_size, -1, *dense.shape[3:])


def net(kind: type[Net]) -> nn.Module:
    torch.manual_seed(0)
    return randomise(kind())


def pointcept(features: torch.Tensor, indices: torch.Tensor) -> tuple[dict[str, torch.Tensor]]:
    offset = torch.bincount(indices[:, 0].long()).cumsum(0)
    return ({"grid_coord": indices[:, 1:].long(), "feat": features, "offset": offset},)


def placeholders(graph: Any) -> list[str]:
    return [node.name for node in graph.graph.nodes if node.op == "placeholder"]


def test_grid_and_batch_size_of_coordinates() -> None:
    model, (features, indices) = net(MinkUNet), batch()
    graph = capture(model, (features, indices), **GIVEN)
    assert placeholders(graph) == ["voxel_features", "coors"]
    assert input_shape(graph) == list(GRID)
    for seed in (0, 1):
        features, indices = batch(seed)
        with torch.no_grad():
            expected = model(features, indices)
        found, sites = ordered(*graph(features, indices))
        wanted, rows = ordered(expected.features, expected.indices)
        assert torch.equal(sites, rows)
        assert relative(found, wanted) <= 1e-5


@pytest.mark.parametrize("kind", [SpUNet, Clamped])
def test_indices_that_the_forward_puts_together_are_an_input(kind: type[Net]) -> None:
    model, (features, indices) = net(kind), batch()
    shape = [max(size, 128) for size in GRID] if kind is Clamped else [size + 95 for size in GRID]
    graph = capture(model, pointcept(features, indices), batch_size=2, spatial_shape=shape)
    assert placeholders(graph) == ["feat", "indices"]
    assert (metadata(graph)["features"], metadata(graph)["indices"]) == ("feat", "indices")
    assert any("give frames as (features, indices)" in note for note in metadata(graph)["notes"])
    for seed in (0, 1):
        features, indices = batch(seed)
        with torch.no_grad():
            made = model(*pointcept(features, indices))
        expected = made if isinstance(made, torch.Tensor) else made.features
        found, _ = graph(features, indices)
        # Rows come in another order: compare them sorted by their values.
        assert relative(found.sort(0).values, expected.sort(0).values) <= 1e-5
    assert quant.calibrate(graph, [batch()], progress=False).frames == 1


def test_a_number_that_follows_from_the_batch_size_is_known_to_the_forward() -> None:
    model, (features, indices) = net(Fsd), batch()
    args = ({"voxel_feats": features, "voxel_coors": indices},)
    graph = capture(model, args, batch_size=2)
    with torch.no_grad():
        expected = model(*args)
    assert relative(graph(features, indices), expected) <= 1e-5
    notes = metadata(graph)["notes"]
    assert any("assert (coors >= 0).all()" in note and "does not check" in note for note in notes)
    assert any("coors[:, 0].max().item()" in note and "constant 1" in note for note in notes)
    outside = indices.clone()
    outside[0, 1] = -1
    with pytest.raises(SiteError):
        graph(features, outside)


def test_asserts_alone_need_no_option() -> None:
    class Checked(Net):
        def forward(self, features: torch.Tensor, coors: torch.Tensor) -> Any:
            assert torch.isfinite(features).all() and (coors[:, 0] >= 0).all()
            return self.stem(spconv.SparseConvTensor(features, coors, list(GRID), 2))

    graph = capture(net(Checked), batch())
    assert len([note for note in metadata(graph)["notes"] if "asserts something" in note]) >= 1


def test_a_decision_on_values_is_refused_with_its_line() -> None:
    class Deciding(Net):
        def forward(self, features: torch.Tensor, coors: torch.Tensor) -> Any:
            if coors[:, 0].max() > 0:
                features = features * 2
            return self.stem(spconv.SparseConvTensor(features, coors, list(GRID), 2))

    with pytest.raises(CaptureError, match=r"test_given_frame\.py:\d+ \(if coors\[:, 0\]\.max\(\) > 0:\)"):
        capture(net(Deciding), batch(), **GIVEN)


def test_a_number_that_depends_on_more_is_refused() -> None:
    class Counting(Net):
        def forward(self, features: torch.Tensor, coors: torch.Tensor) -> Any:
            size = int((coors[:, 1] == 0).sum()) + 1
            return self.stem(spconv.SparseConvTensor(features, coors, [size, *GRID[1:]], 2))

    with pytest.raises(CaptureError, match=r"test_given_frame\.py:\d+ \(size = int"):
        capture(net(Counting), batch(), **GIVEN)


def test_what_is_not_given_has_no_answer() -> None:
    with pytest.raises(CaptureError, match=r"capture\(…, batch_size=…, spatial_shape=…\)"):
        capture(net(MinkUNet), batch())
    with pytest.raises(CaptureError, match=r"SparseConvTensor\(voxel_features.*spatial_shape=…"):
        capture(net(MinkUNet), batch(), batch_size=2)
    with pytest.raises(CaptureError, match=r"batch_size=…"):
        capture(net(Fsd), ({"voxel_feats": batch()[0], "voxel_coors": batch()[1]},))
    with pytest.raises(CaptureError, match=r"spatial_shape=…"):
        capture(net(SpUNet), pointcept(*batch()))


class Flipped(Net):
    """Reorders the columns of its coordinates."""

    def forward(self, features: torch.Tensor, coors: torch.Tensor) -> Any:
        sites = coors[:, [0, 3, 2, 1]].contiguous()
        return self.stem(spconv.SparseConvTensor(features, sites, [13, 12, 9], 2))


def test_indices_other_than_those_of_args_give_a_warning() -> None:
    model, (features, indices) = net(Flipped), batch()
    with pytest.raises(CaptureError, match="index in"):
        capture(model, (features, indices))
    with pytest.warns(CaptureWarning, match=r"computes the indices.*'indices'"):
        graph = capture(model, (features, indices), batch_size=2, spatial_shape=GRID[::-1])
    assert placeholders(graph) == ["features", "indices"]
    with torch.no_grad():
        expected = model(features, indices)
    assert relative(graph(features, indices[:, [0, 3, 2, 1]].contiguous())[0], expected.features) <= 1e-5


def test_sparse_tensors_on_sites_of_layers_stay_what_they_are() -> None:
    class Again(Net):
        def forward(self, features: torch.Tensor, coors: torch.Tensor) -> Any:
            x = self.stem(spconv.SparseConvTensor(features, coors, coors.max(0)[0][1:] + 1, 2))
            y = self.down(x)
            return spconv.SparseConvTensor(y.features, y.indices, y.spatial_shape, y.batch_size).dense()

    features, indices = batch()
    graph = capture(net(Again), (features, indices), **GIVEN)
    assert graph(features, indices).shape == (2, 16, 5, 6, 7)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"batch_size": True}, "batch_size must be"),
        ({"spatial_shape": [1, 2]}, "captur"),
        ({"spatial_shape": 3}, "spatial_shape must be the sizes"),
        ({"spatial_shape": [9, 12, 0]}, "spatial_shape must be the sizes"),
        ({"spatial_shape": [9, 12, 13.0]}, "spatial_shape must be the sizes"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(CaptureError, match=text):
        capture(net(MinkUNet), batch(), **{**GIVEN, **options})


class Fixed(nn.Module):
    """A grid of its own, in any order."""

    def __init__(self, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.stem, self.grid = block(4, 8, "stem"), grid

    def forward(self, features: torch.Tensor, coors: torch.Tensor, batch_size: int) -> Any:
        return self.stem(spconv.SparseConvTensor(features, coors.int(), list(self.grid), batch_size)).dense()


def test_a_grid_that_looks_like_x_y_z_gives_a_hint() -> None:
    args = (*frame(), 1)
    with pytest.warns(CaptureWarning, match=r'1440 x 1440 x 41: its smallest axis comes last.*axes="xyz"'):
        capture(randomise(Fixed((1440, 1440, 41))), args)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CaptureWarning)
        graph = capture(randomise(Fixed((1440, 1440, 41))), args, axes="xyz")
        assert layers(graph)[-1].format == "xyz"
        for grid in ((41, 1440, 1440), (9, 12, 13), (400, 400, 150)):
            capture(randomise(Fixed(grid)), args)


class TwoLayers(nn.Module):
    """Layers that share a key on the sites of the frame, before and after another level."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (spconv.SubMConv3d(4, 4, 3, bias=False, indice_key="same") for _ in range(2))
        self.low = spconv.SparseConv3d(4, 4, 2, 2, bias=False, indice_key="low")
        self.up = spconv.SparseInverseConv3d(4, 4, 2, bias=False, indice_key="low")

    def forward(self, features: torch.Tensor, coors: torch.Tensor) -> Any:
        indices = torch.cat([coors[:, :1], coors[:, 1:]], 1)
        x = self.a(spconv.SparseConvTensor(features, indices, coors.max(0)[0][1:] + 1, 2))
        y = self.up(self.low(x.replace_feature(x.features.relu())))
        y = y.replace_feature(torch.cat([y.features, x.features], 1)[:, 2:6])
        return self.b(y)


def test_sites_of_the_frame_stay_one_set() -> None:
    """spconv replaces features by making a tensor anew."""
    torch.manual_seed(0)
    model, (features, indices) = TwoLayers().eval(), batch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaptureWarning)
        graph = capture(model, (features, indices), **GIVEN)
    with torch.no_grad():
        expected = model(features, indices)
    found, sites = graph(features, indices)
    assert torch.equal(sites, indices) and relative(found, expected.features) < 1e-5
