# SPDX-License-Identifier: Apache-2.0
"""Sites that a forward merges: `torch.unique` of scaled, divided or projected indices; misaligned sums."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from scn_fx.capture import capture
from scn_fx.errors import CaptureError, ExportError
from scn_fx.exporting import export_onnx
from scn_fx.graph import layers, metadata
from scn_fx.ops.sites import lifted_sites
from scn_fx.zoo import VoxelNeXtEncoder, demo_frame, randomise_weights
from tests.capture.frames import GRID, frame, ordered, relative, sparse

import spconv.pytorch as spconv  # isort: skip
from spconv.pytorch.tables import AddTableMisaligned  # isort: skip


def subm(width: int = 4, out: int = 8) -> nn.Module:
    return spconv.SubMConv3d(width, out, 3, bias=False)


def down(width: int = 8) -> nn.Module:
    return spconv.SparseConv3d(width, width, 3, 2, 1, bias=False)


def summed(x: Any, cells: Any, shape: Any) -> Any:
    """The merging of sites as VoxelNeXt has it."""
    found, rows = torch.unique(cells, dim=0, return_inverse=True)
    features = x.features.new_zeros((found.shape[0], x.features.shape[1]))
    features.index_add_(0, rows, x.features)
    return spconv.SparseConvTensor(features, found, shape, x.batch_size)


class Above(nn.Module):
    """One tensor seen from above, with a layer of two dimensions behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = subm(), spconv.SubMConv2d(8, 8, 3, bias=False)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        return self.last(summed(x, x.indices[:, [0, 2, 3]], x.spatial_shape[1:]))


class Levels(nn.Module):
    """Three levels on the grid of the first."""

    def __init__(self, flat: bool = True) -> None:
        super().__init__()
        self.flat = flat
        self.first, self.second, self.third = subm(), down(), down()
        self.last = spconv.SparseConv2d(8, 8, 3, padding=1, bias=False) if flat else subm(8)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        y = self.second(x)
        z = self.third(y)
        y.indices[:, 1:] *= 2
        z.indices[:, 1:] = z.indices[:, 1:] * 4
        joined = x.replace_feature(torch.cat([x.features, y.features, z.features]))
        joined.indices = torch.cat([x.indices, y.indices, z.indices])
        if not self.flat:
            return self.last(summed(joined, joined.indices, x.spatial_shape))
        return self.last(summed(joined, joined.indices[:, [0, 2, 3]], x.spatial_shape[1:]))


class Halved(nn.Module):
    """Cells numbered by one sum of their coordinates, as LION numbers them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = subm(), subm(8)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        coords = x.indices.clone()
        coords[:, 3:4] = coords[:, 3:4] // 2
        coords[:, 2:3] = torch.div(coords[:, 2:3], 2, rounding_mode="floor")
        coords[:, 1:2] //= 1
        d, h, w = x.spatial_shape[0], x.spatial_shape[1] // 2, x.spatial_shape[2] // 2
        key = coords[:, 0].int() * (w * h * d) + coords[:, 3] * (h * d) + coords[:, 2] * d + coords[:, 1]
        cells, rows = torch.unique(key, return_inverse=True)
        features = torch.zeros(cells.shape[0], x.features.shape[1])
        features = features.scatter_add(0, rows.unsqueeze(1).expand(-1, x.features.shape[1]), x.features)
        cells = cells.int()
        columns = (cells // (w * h * d), (cells % (w * h * d)) // (h * d), (cells % (h * d)) // d, cells % d)
        indices = torch.stack(columns, dim=1)[:, [0, 3, 2, 1]]
        return self.last(spconv.SparseConvTensor(features, indices.int(), [d, h, w], x.batch_size))


def scatter_sum(src: Any, index: Any, dim: int = -1, out: Any = None, dim_size: int | None = None) -> Any:
    """Has the interface of torch_scatter's, and asks for the largest number as that does."""
    size = int(index.max()) + 1 if dim_size is None else dim_size
    return src.new_zeros(size, src.shape[1]).index_add(dim, index, src)


class Scattered(nn.Module):
    """Sums by torch_scatter; `by` chooses how it is called."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.first, self.last, self.by = subm(), spconv.SubMConv2d(8, 8, 3, bias=False), by

    def forward(self, x: Any) -> Any:
        import torch_scatter

        x = self.first(x)
        cells, rows = torch.unique(x.indices[:, [0, 2, 3]], dim=0, return_inverse=True)
        if self.by == "module":
            features = torch_scatter.scatter_add(x.features, rows, dim=0)
        elif self.by == "name":
            features = scatter_sum(x.features, rows, 0)
        else:
            features = torch_scatter.scatter_add(x.features, rows, 0, None, cells.shape[0])
        return self.last(spconv.SparseConvTensor(features, cells, x.spatial_shape[1:], x.batch_size))


@pytest.mark.parametrize("by", ["module", "name", "size"])
def test_sums_by_torch_scatter(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is compiled code that is not among the packages of the tests: a module with its interface."""
    module = ModuleType("torch_scatter")
    module.scatter_add = module.scatter_sum = scatter_sum  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_scatter", module)
    model = Scattered(by).eval()
    features, indices = frame(batch=2)
    graph = capture(model, (sparse(features, indices),))
    assert module.scatter_add is scatter_sum and globals()["scatter_sum"] is scatter_sum
    with torch.no_grad():
        expected = model(sparse(features, indices))
    found, sites = ordered(*graph(features, indices))
    wanted, wanted_sites = ordered(expected.features, lifted_sites(expected.indices))
    assert torch.equal(sites, wanted_sites)
    assert relative(found, wanted) <= 1e-5


class Misaligned(nn.Module):
    """A residual whose branches lie on different sites, added by spconv's table."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.add = subm(), AddTableMisaligned()
        self.wide = spconv.SparseConv3d(8, 8, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        return self.add([x, self.wide(x)])


EVEN = (8, 12, 14)


@pytest.mark.parametrize(
    ("model", "grid"),
    [(Above(), GRID), (Levels(), GRID), (Levels(flat=False), GRID), (Halved(), EVEN)],
    ids=["above", "levels", "levels of three dimensions", "halved"],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_merged_sites_are_those_of_spconv(model: nn.Module, grid: tuple[int, int, int], batch: int) -> None:
    features, indices = frame(grid=grid, batch=batch)
    graph = capture(model.eval(), (sparse(features, indices, grid),))
    for seed in (1, 2):
        features, indices = frame(grid=grid, batch=batch, seed=seed)
        with torch.no_grad():
            expected = model(sparse(features, indices, grid))
        found, sites = ordered(*graph(features, indices))
        wanted, wanted_sites = ordered(expected.features, lifted_sites(expected.indices.int()))
        assert torch.equal(sites, wanted_sites)
        assert relative(found, wanted) <= 1e-5


def test_what_the_graph_of_merged_levels_has() -> None:
    features, indices = frame()
    graph = capture(Levels().eval(), (sparse(features, indices),))
    kinds = [layer.kind for layer in layers(graph)]
    assert kinds.count("pool") == 3 and kinds.count("union") == 1
    names = [layer.name for layer in layers(graph)]
    assert {"merge.0", "merge.1", "merge.2", "union"} <= set(names)
    (note,) = metadata(graph)["notes"]
    assert "indices are (batch, z, y, x), with 0 along" in note
    with pytest.raises(ExportError, match=r"dialect libspconv has no form of pool.*dialect=\"scn_fx\""):
        export_onnx(graph, "nowhere.onnx", "dynamo", "libspconv")


@pytest.mark.parametrize("batch", [1, 2])
def test_a_table_adds_tensors_on_different_sites(batch: int) -> None:
    """spconv's own has a kernel for GPUs alone: the dense maps of its branches say what it gives."""
    model = Misaligned().eval()
    features, indices = frame(batch=batch)
    graph = capture(model, (sparse(features, indices),))
    assert [layer.name for layer in layers(graph)] == ["first", "wide", "add"]
    with torch.no_grad():
        x = model.first(sparse(features, indices))
        wide = model.wide(x)
        expected = x.dense() + wide.dense()
    found, sites = graph(features, indices)
    b, z, y, x = sites.long().unbind(1)
    assert relative(found, expected[b, :, z, y, x]) <= 1e-5
    assert len(sites) == len(torch.unique(torch.cat([indices, wide.indices]), dim=0))
    assert torch.equal(sites, torch.unique(sites, dim=0))


def test_tensors_on_the_same_sites_are_added_row_by_row() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.add = subm(), subm(8), AddTableMisaligned()

        def forward(self, x: Any) -> Any:
            x = self.first(x)
            return self.add([x, self.second(x)])

    graph = capture(Same().eval(), (sparse(*frame()),))
    assert [layer.kind for layer in layers(graph)] == ["convolution", "convolution", "add"]


def test_voxelnext_computes_what_spconv_computes() -> None:
    model = VoxelNeXtEncoder(bias=False)
    features, indices = demo_frame(0, 900, grid=model.grid)
    randomise_weights(model, features, indices)
    graph = capture(model, model.arguments(features, indices), output=model.main_output)
    with torch.no_grad():
        expected = model(*model.arguments(features, indices.clone()))[model.main_output]
    found, sites = ordered(*graph(features, indices))
    wanted, wanted_sites = ordered(expected.features, lifted_sites(expected.indices))
    assert torch.equal(sites, wanted_sites)
    assert relative(found, wanted) <= 1e-5


class Tall(nn.Module):
    """Sums over axes of a dense map."""

    def __init__(self, *dims: int, keep: bool = False) -> None:
        super().__init__()
        self.first, self.dims, self.keep = subm(), dims, keep

    def forward(self, x: Any) -> Any:
        return self.first(x).dense().sum(self.dims, keepdim=self.keep)


@pytest.mark.parametrize("model", [Tall(2), Tall(2, keep=True), Tall(-1, 2), Tall(3), Tall(2, 3, 4)])
def test_sums_over_axes_of_a_dense_map(model: Tall) -> None:
    features, indices = frame(batch=2)
    graph = capture(model.eval(), (sparse(features, indices),))
    assert [layer.kind for layer in layers(graph)] == ["convolution", "pool", "scatter_dense", "reshape"]
    with torch.no_grad():
        expected = model(sparse(features, indices))
    assert relative(graph(features, indices), expected) <= 1e-5


class Wrong(nn.Module):
    """Mergings that are none of a graph's."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.how = subm(), how
        self.last = subm(8)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        i, f, shape = x.indices, x.features, x.spatial_shape
        if self.how == "odd":
            i = torch.cat([i[:, :1], i[:, 1:] // 2], 1)
            shape = [-(-n // 2) for n in shape]
        elif self.how == "swapped":
            i, shape = i[:, [0, 2, 1, 3]], [shape[1], shape[0], shape[2]]
        elif self.how == "both":
            i = torch.cat([i[:, :1], i[:, 1:2] * 2, i[:, 2:3] // 3, i[:, 3:]], 1)
        elif self.how == "batch":
            i = torch.cat([i[:, 1:2], i[:, 1:]], 1)
        elif self.how == "values":
            i = torch.cat([i[:, :3], (i[:, 3:] * f[:, :1]).int()], 1)
        elif self.how == "large":
            shape = [2 * n for n in shape]
        elif self.how == "other":
            i, f = torch.cat([i, i]), f.repeat(2, 1)
        start = f.new_ones if self.how == "ones" else f.new_zeros
        cells, rows = torch.unique(i, dim=0, return_inverse=True)
        features = start((cells.shape[0], 8)).index_add(0, rows, f)
        if self.how == "finer":
            cells, shape = cells * cells.new_tensor([1, 0, 1, 1]), [1, *shape[1:]]
        elif self.how == "fewer":
            cells, shape = torch.cat([cells[:, :1], cells[:, :1], cells[:, 2:]], 1), [2, *shape[1:]]
        return self.last(spconv.SparseConvTensor(features, cells, shape, x.batch_size))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("odd", "divides z by 2, and its 9 cells are no multiple"),
        ("swapped", "axes in another order"),
        ("both", "multiplies some coordinates and divides others"),
        ("batch", "first column of its cells is not the batch"),
        ("values", "rows cannot be chosen, sorted, gathered or merged"),
        ("large", "z has 9 cells then, but layers behind it expect 18"),
        ("ones", "not summed from zero"),
        ("finer", "not known from the indices alone"),
        ("fewer", "rows that differ become one cell afterwards"),
        ("other", "indices of 2 tensor.s., but features of 1"),
    ],
)
def test_other_mergings_are_refused_with_a_reason(how: str, reason: str) -> None:
    features, indices = frame()
    with pytest.raises(CaptureError, match=reason) as error:
        capture(Wrong(how).eval(), (sparse(features, indices),))
    assert "output='first'" in str(error.value) and "test_merging.py:" in str(error.value)


def test_sums_of_different_grids_or_too_many_tensors_are_refused() -> None:
    class Table(nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.first, self.add, self.count = subm(), AddTableMisaligned(), count
            self.wide = spconv.SparseConv3d(8, 8, 3, padding=0 if count == 2 else 1, bias=False)

        def forward(self, x: Any) -> Any:
            x = self.first(x)
            return self.add([x, *[self.wide(x)] * (self.count - 1)])

    features, indices = frame()
    for count, text in ((2, "different grid"), (9, "adds 9 tensors, and 8 are the most")):
        with pytest.raises(CaptureError, match=text):
            capture(Table(count).eval(), (sparse(features, indices),))
