# SPDX-License-Identifier: Apache-2.0
"""What the chosen output does not depend on need not be supported; what it depends on is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import spconv.pytorch as spconv
import spconv.pytorch.functional as functional
import torch
from torch import nn

from scn_fx.capture import capture
from scn_fx.errors import CaptureError
from tests.capture.frames import GRID, frame, ordered, relative


def subm(inputs: int = 4, outputs: int = 4, **options: Any) -> Any:
    return spconv.SubMConv3d(inputs, outputs, 3, **{"bias": False, **options})


def down(inputs: int = 4, outputs: int = 4, kernel: int = 3, **options: Any) -> Any:
    return spconv.SparseConv3d(inputs, outputs, kernel, 2, padding=kernel // 2, **{"bias": False, **options})


class Levels(nn.Module):
    """Returns its first level, and what `rest` makes of the second."""

    def __init__(self, rest: Callable[[Levels, Any], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.first, self.second = subm(), down()
        for name, module in modules.items():
            self.add_module(name, module)
        self._rest = rest

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> dict[str, Any]:
        level1 = self.first(spconv.SparseConvTensor(features, indices, list(GRID), 1))
        level2 = self.second(level1)
        return {"level1": level1, "level2": level2, "rest": self._rest(self, level2)}


def merged_columns(m: Any, x: Any) -> Any:
    """Means over all heights: where sums are merged, nothing counts what they are of."""
    columns = x.indices[:, [0, 2, 3]]
    sites, inverse, counts = torch.unique(columns, dim=0, return_inverse=True, return_counts=True)
    features = x.features.new_zeros((sites.shape[0], x.features.shape[1]))
    features = features.index_add(0, inverse, x.features) / counts[:, None]
    return m.flat(spconv.SparseConvTensor(features, sites.int(), x.spatial_shape[1:], x.batch_size))


def written(m: Any, x: Any) -> Any:
    """A dense map that is written into, and a constant."""
    dense = x.dense()
    dense[:, 0] = 1.0
    return dense * torch.tensor([2.0])


RESTS: dict[str, tuple[Callable[[Any, Any], Any], dict[str, Callable[[], nn.Module]], str]] = {
    "dilated and transposed": (
        lambda m, x: m.up(x),
        {"up": lambda: spconv.SparseConvTranspose3d(4, 4, 3, dilation=2, bias=False)},
        r"'up' \(SparseConvTranspose3d\)",
    ),
    "that, and convolved": (
        lambda m, x: m.conv(m.up(x)).dense(),
        {"up": lambda: spconv.SparseConvTranspose3d(4, 4, 3, dilation=2, bias=False), "conv": subm},
        r"'up' \(SparseConvTranspose3d\).*dilation",
    ),
    "global pooling": (
        lambda m, x: m.head(m.pool(x)),
        {"pool": lambda: spconv.SparseGlobalMaxPool(), "head": lambda: nn.Linear(4, 2)},
        r"linear in module 'head' \(Linear\)",
    ),
    "2D neck": (
        lambda m, x: m.neck(x.dense().flatten(1, 2)),
        {"neck": lambda: nn.Sequential(nn.Conv2d(20, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))},
        r"conv2d in module 'neck\.0' \(Conv2d\)",
    ),
    "mean of merged columns": (
        merged_columns,
        {"flat": lambda: spconv.SubMConv2d(4, 4, 3, bias=False)},
        "div in|unique_dim in",
    ),
    "other widths": (
        lambda m, x: functional.sparse_add(x, x.replace_feature(x.features[:, :2])),
        {},
        "sparse_add adds sparse tensors of different width",
    ),
    "other grids": (
        lambda m, x: m.add([x, m.conv(x)]),
        {
            "conv": lambda: spconv.SparseConv3d(4, 4, 3, 2, bias=False),
            "add": lambda: spconv.tables.AddTableMisaligned(),
        },
        "sparse_add_hash_based adds sparse tensors of different grid",
    ),
    "written": (written, {}, "is not supported|in place"),
    "selected": (lambda m, x: x.features[x.features[:, 0] > 0], {}, "is not supported|output must be"),
    "several results": (lambda m, x: x.dense().max(2), {}, "max in|no output"),
    "top": (lambda m, x: x.dense().flatten(2).topk(3)[0], {}, "topk in"),
    "split": (lambda m, x: x.dense().split(2, 1)[1], {}, "split in"),
    "unbound": (lambda m, x: x.dense().unbind(2)[0], {}, "unbind in"),
    "sorted": (lambda m, x: x.dense().flatten().sort()[0], {}, "sort in"),
    "batch statistics": (
        lambda m, x: m.norm(x.features),
        {"norm": lambda: nn.BatchNorm1d(4, track_running_stats=False)},
        r"'norm' \(BatchNorm1d\)",
    ),
    "key taken": (
        lambda m, x: m.b(m.a(x)),
        {"a": lambda: down(indice_key="k"), "b": lambda: down(indice_key="k")},
        "k",
    ),
    "other channels": (
        lambda m, x: m.conv(x),
        {"conv": lambda: subm(5, 4)},
        "expects features of 5 channels",
    ),
}


def made(case: str) -> Levels:
    rest, modules, _ = RESTS[case]
    torch.manual_seed(0)
    model = Levels(rest, **{name: make() for name, make in modules.items()})
    return model.eval()


@pytest.mark.parametrize("case", RESTS)
def test_a_level_before_the_unsupported_part_is_captured(case: str) -> None:
    model, (features, indices) = made(case), frame()
    for output in ("level1", "level2"):
        graph = capture(model, (features, indices), output)
        found, sites = ordered(*graph(features, indices))
        with torch.no_grad():
            expected = model.first(spconv.SparseConvTensor(features, indices, list(GRID), 1))
            if output == "level2":
                expected = model.second(expected)
        wanted, wanted_sites = ordered(expected.features, expected.indices)
        assert torch.equal(sites, wanted_sites)
        assert relative(found, wanted) <= 1e-5


@pytest.mark.parametrize("case", RESTS)
def test_the_unsupported_part_itself_is_refused_by_name(case: str) -> None:
    output: Any = ("rest", 0) if case == "several results" else "rest"
    with pytest.raises(CaptureError, match=RESTS[case][2]):
        capture(made(case), frame(), output)


def test_the_message_lists_the_outputs_that_there_are() -> None:
    with pytest.raises(
        CaptureError, match=r"choose an output that does not need it \(output='level1': sparse tensor"
    ):
        capture(made("2D neck"), frame(), "rest")


class Padded(nn.Module):
    """Changes the grid of its sites between two layers, or before the dense map."""

    def __init__(self, change: int, again: bool) -> None:
        super().__init__()
        self.first, self.second, self._change, self._again = subm(), subm(), change, again

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
        x = self.first(spconv.SparseConvTensor(features, indices, list(GRID), 1))
        x.spatial_shape = [size + self._change for size in x.spatial_shape]
        return (self.second(x) if self._again else x).dense()


def test_a_dense_map_may_be_larger_than_its_sites_and_nothing_else() -> None:
    model, (features, indices) = Padded(3, False).eval(), frame()
    graph = capture(model, (features, indices))
    with torch.no_grad():
        expected = model(features, indices)
    assert expected.shape == (1, 4, 12, 15, 16)
    assert relative(graph(features, indices), expected) <= 1e-5
    for change, again in ((-1, False), (3, True), (-1, True)):
        with pytest.raises(CaptureError, match="only a dense map may be larger"):
            capture(Padded(change, again).eval(), frame())
