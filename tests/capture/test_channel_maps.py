# SPDX-License-Identifier: Apache-2.0
"""Concatenation, BatchNorm anywhere, Linear, sums and slices of channels: what spconv computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
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
from scn_fx.errors import CalibrationWarning, CaptureError
from scn_fx.exporting import export_onnx
from scn_fx.graph import layers
from tests.capture.frames import frame, ordered, randomise, relative, sparse
from tests.oracle.dialect import read_network
from tests.oracle.network import run_network


def subm(channels: int, out: int, kernel: int = 3, key: str | None = "a") -> Any:
    return spconv.SubMConv3d(channels, out, kernel, bias=False, indice_key=key if kernel > 1 else None)


def joined(*tensors: Any) -> Any:
    return tensors[0].replace_feature(torch.cat([x.features for x in tensors], dim=1))


def given_features(x: Any, features: torch.Tensor) -> Any:
    return x.replace_feature(features)


class Case(nn.Module):
    """A first layer of eight channels, what a test does with its result, and a last layer."""

    def __init__(self, body: Callable[[Any, Any], Any], width: int, **modules: nn.Module) -> None:
        super().__init__()
        self.first = subm(4, 8)
        self.body = body
        for name, module in modules.items():
            self.add_module(name, module)
        self.last = subm(width, 4)

    def forward(self, x: Any) -> Any:
        return self.last(self.body(self, self.first(x)))


class ChannelSum(nn.Module):
    """As UNetV2 reduces channels."""

    def forward(self, x: Any) -> Any:
        n, channels = x.features.shape
        return x.replace_feature(x.features.view(n, channels // 2, -1).sum(dim=2))


def norm(channels: int = 8) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3)


Made = tuple[Callable[[Any, Any], Any], int, dict[str, Callable[[], nn.Module]], int]

# name: what happens behind the first layer, channels then, modules, layers in the graph
CASES: dict[str, Made] = {
    "concatenation": (
        lambda m, x: joined(m.a(x), m.b(x)),
        14,
        {"a": lambda: subm(8, 8), "b": lambda: subm(8, 6)},
        6,
    ),
    "of three, twice the same": (lambda m, x: joined(x, m.a(x), x), 24, {"a": lambda: subm(8, 8)}, 5),
    "by JoinTable": (lambda m, x: spconv.JoinTable()([x, m.a(x)]), 16, {"a": lambda: subm(8, 8)}, 5),
    "of layers with activations": (
        lambda m, x: joined(*(given_features(y, m.relu(y.features)) for y in (x, m.a(x)))),
        16,
        {"a": lambda: subm(8, 8), "relu": nn.ReLU},
        6,
    ),
    "with BatchNorm and ReLU behind": (
        lambda m, x: (y := joined(x, m.a(x))) and given_features(y, m.relu(m.norm(y.features))),
        16,
        {"a": lambda: subm(8, 8), "norm": lambda: norm(16), "relu": nn.ReLU},
        6,
    ),
    "twice the same with BatchNorm behind": (
        lambda m, x: (y := joined(m.b(x), m.a(x), m.b(x))) and given_features(y, m.norm(y.features)),
        24,
        {"a": lambda: subm(8, 8), "b": lambda: subm(8, 8), "norm": lambda: norm(24)},
        9,
    ),
    "one value twice with BatchNorm and ReLU behind": (
        lambda m, x: (
            (z := m.b(x), y := joined(z, m.a(x), z)) and given_features(y, m.norm(y.features).relu())
        ),
        24,
        {"a": lambda: subm(8, 8), "b": lambda: subm(8, 8), "norm": lambda: norm(24)},
        10,
    ),
    "a Linear read by a layer and by another channel map": (
        lambda m, x: (
            (n := given_features(x, m.linear(m.b(x).features)))
            and given_features(x, m.a(n).features + m.c(given_features(n, 2 * n.features)).features)
        ),
        8,
        {
            "a": lambda: subm(8, 8),
            "b": lambda: subm(8, 8, 1),
            "c": lambda: subm(8, 8),
            "linear": lambda: nn.Linear(8, 8),
        },
        8,
    ),
    "with SiLU behind": (
        lambda m, x: (y := joined(x, m.a(x))) and given_features(y, m.act(y.features)),
        16,
        {"a": lambda: subm(8, 8), "act": nn.SiLU},
        6,
    ),
    "read by a sum": (
        lambda m, x: (y := joined(x, m.a(x))) and given_features(y, y.features + m.b(y).features),
        16,
        {"a": lambda: subm(8, 8), "b": lambda: subm(16, 16)},
        10,
    ),
    "read by kernels of one offset": (
        lambda m, x: m.b(joined(x, m.a(x))),
        8,
        {"a": lambda: subm(8, 8), "b": lambda: subm(16, 8, 1)},
        6,
    ),
    "read by a ReLU whose result is read twice": (
        lambda m, x: (
            (y := joined(x, m.a(x)))
            and (z := given_features(y, y.features.relu()))
            and given_features(z, m.b(z).features + m.c(z).features)
        ),
        8,
        {"a": lambda: subm(8, 8), "b": lambda: subm(16, 8), "c": lambda: subm(16, 8, 5, "c")},
        11,
    ),
    "BatchNorm before a convolution": (
        lambda m, x: given_features(x, m.norm(x.features).relu() + x.features),
        8,
        {"norm": norm},
        4,
    ),
    "BatchNorm behind a ReLU": (
        lambda m, x: given_features(x, m.norm(x.features.relu())),
        8,
        {"norm": norm},
        3,
    ),
    "BatchNorm behind a sum of convolutions": (
        lambda m, x: given_features(x, m.norm(m.a(x).features + m.b(x).features).relu()),
        8,
        {"a": lambda: subm(8, 8), "b": lambda: subm(8, 8, 5, "b"), "norm": norm},
        5,
    ),
    "BatchNorm without parameters": (
        lambda m, x: given_features(x, m.norm(x.features.relu())),
        8,
        {"norm": lambda: nn.BatchNorm1d(8, affine=False)},
        3,
    ),
    "two BatchNorms": (
        lambda m, x: given_features(x, m.other(m.norm(x.features.relu()))),
        8,
        {"norm": norm, "other": norm},
        3,
    ),
    "BatchNorm used twice": (
        lambda m, x: given_features(x, m.norm(m.norm(x.features).relu())),
        8,
        {"norm": norm},
        3,
    ),
    "Linear": (
        lambda m, x: given_features(x, m.linear(x.features).relu()),
        6,
        {"linear": lambda: nn.Linear(8, 6)},
        2,
    ),
    "Linear that widens": (
        lambda m, x: given_features(x, m.linear(x.features).relu()),
        24,
        {"linear": lambda: nn.Linear(8, 24)},
        3,
    ),
    "Linear without bias before a convolution": (
        lambda m, x: given_features(x, m.linear(x.features.relu())),
        8,
        {"linear": lambda: nn.Linear(8, 8, bias=False)},
        2,
    ),
    "Linear, Dropout, BatchNorm": (
        lambda m, x: given_features(x, m.mlp(x.features.relu())),
        6,
        {"mlp": lambda: nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.3), norm(6), nn.ReLU(), nn.Linear(6, 6))},
        4,
    ),
    "mm": (
        lambda m, x: given_features(x, torch.mm(x.features.relu(), m.linear.weight.t())),
        6,
        {"linear": lambda: nn.Linear(8, 6)},
        3,
    ),
    "matmul of a transposed weight": (
        lambda m, x: given_features(x, x.features.relu() @ m.linear.weight.T + m.linear.bias),
        6,
        {"linear": lambda: nn.Linear(8, 6)},
        3,
    ),
    "channel sum": (
        lambda m, x: m.reduce(given_features(x, x.features.relu())),
        4,
        {"reduce": ChannelSum},
        3,
    ),
    "channel sum of a concatenation": (
        lambda m, x: m.reduce(joined(given_features(x, x.features.relu()), m.a(x))),
        8,
        {"reduce": ChannelSum, "a": lambda: subm(8, 8)},
        7,
    ),
    "a slice": (lambda m, x: given_features(x, x.features.relu()[:, 2:5]), 3, {}, 3),
    "halves of a chunk": (
        lambda m, x: given_features(x, torch.cat([c.relu() for c in reversed(x.features.chunk(2, 1))], 1)),
        8,
        {},
        6,
    ),
    "a difference": (
        lambda m, x: given_features(x, x.features - m.a(x).features),
        8,
        {"a": lambda: subm(8, 8)},
        4,
    ),
    "a weighted sum": (
        lambda m, x: given_features(x, torch.add(x.features.relu(), m.a(x).features, alpha=2)),
        8,
        {"a": lambda: subm(8, 8)},
        5,
    ),
    "a scale per channel": (
        lambda m, x: given_features(x, x.features.relu() * m.norm.weight),
        8,
        {"norm": norm},
        2,
    ),
    "a shift": (lambda m, x: given_features(x, x.features + 0.5), 8, {}, 2),
    "a shift read by a larger kernel": (lambda m, x: given_features(x, x.features.relu() + 0.5), 8, {}, 3),
    "one channel for all": (
        lambda m, x: given_features(x, x.features.relu() + m.a(x).features),
        8,
        {"a": lambda: subm(8, 1)},
        6,
    ),
    "Dropout and Identity": (
        lambda m, x: given_features(x, m.drop(m.same(x.features))),
        8,
        {"drop": lambda: nn.Dropout(0.5), "same": nn.Identity},
        2,
    ),
}


def made(case: str) -> nn.Module:
    body, width, modules, _ = CASES[case]
    torch.manual_seed(0)
    model = Case(body, width, **{name: make() for name, make in modules.items()})
    randomise(model)
    return model.eval()


@pytest.mark.parametrize("case", CASES)
def test_the_graph_is_the_model(case: str) -> None:
    model = made(case)
    graph = capture(model, (sparse(*frame()),))
    assert len([layer for layer in layers(graph) if layer.spec.layer]) == CASES[case][3]
    for args in (frame(seed=3, sites=300), frame(seed=4, sites=2)):
        with torch.no_grad():
            assert relative(graph(*args)[0], model(sparse(*args)).features) < 2e-6
    assert graph(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.int32))[0].shape == (0, 4)


@pytest.mark.parametrize("case", CASES)
def test_its_int8_file_is_of_libspconvs_dialect_and_has_the_graphs_bits(case: str, tmp_path: Path) -> None:
    graph = capture(made(case), (sparse(*frame()),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        quant.calibrate(graph, [frame(seed=seed) for seed in (0, 1)], method="max", progress=False)
    dialect = "scn_fx" if "SiLU" in case else "libspconv"
    export_onnx(graph, tmp_path / "scn.onnx", "torchscript", dialect)
    network = read_network(tmp_path / "scn.onnx", dialect)
    features, indices = (t.numpy() for t in frame(seed=2))
    features = features.astype(np.float16).astype(np.float32)
    values, sites = scn_fx.Engine(tmp_path / "scn.onnx")(features, indices)
    expected, _ = graph(torch.from_numpy(features), torch.from_numpy(indices))
    np.testing.assert_array_equal(values, expected.numpy())
    (oracle,) = run_network(network, features, indices).outputs
    np.testing.assert_array_equal(values, oracle.values)
    np.testing.assert_array_equal(sites, indices)


def test_layers_are_named_after_their_modules() -> None:
    names = {
        case: [layer.name for layer in layers(capture(made(case), (sparse(*frame()),)))] for case in CASES
    }
    assert names["concatenation"] == ["first", "a", "b", "last.part0", "last.part1", "last.add"]
    assert names["BatchNorm behind a ReLU"] == ["first", "norm", "last"]
    assert names["Linear that widens"] == ["first", "linear", "last"]
    assert names["BatchNorm used twice"] == ["first", "norm", "last"]
    assert names["Linear, Dropout, BatchNorm"] == ["first", "mlp.2", "mlp.4", "last"]
    assert names["read by a sum"][5:8] == ["cat", "cat_1", "add"]


def test_kernels_of_one_offset_share_a_map() -> None:
    graph = capture(made("Linear, Dropout, BatchNorm"), (sparse(*frame()),))
    maps = [node for node in graph.graph.nodes if "kernel_size" in node.kwargs]
    assert [list(node.kwargs["kernel_size"]) for node in maps] == [[3, 3, 3], [1, 1, 1]]


class Levels(nn.Module):
    """Two levels, of which the second returns by an inverse convolution and is joined with the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = spconv.SparseSequential(subm(4, 8), norm(), nn.ReLU())
        self.down = spconv.SparseSequential(
            spconv.SparseConv3d(8, 12, 3, 2, padding=1, bias=False, indice_key="d"), norm(12), nn.ReLU()
        )
        self.up = spconv.SparseSequential(
            spconv.SparseInverseConv3d(12, 8, 3, bias=False, indice_key="d"), norm(), nn.ReLU()
        )
        self.tail = spconv.SparseSequential(norm(16), nn.ReLU(), subm(16, 8), norm(), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(8, 8), norm(), nn.ReLU(), nn.Linear(8, 3))
        self.coarse = nn.Linear(12, 2)

    def forward(self, x: Any) -> tuple[Any, Any]:
        x = self.first(x)
        low = self.down(x)
        y = self.tail(joined(x, self.up(low)))
        return self.head(y.features), low.replace_feature(self.coarse(low.features))


@pytest.mark.parametrize("output", [0, 1])
def test_levels_of_a_u_net(output: int) -> None:
    torch.manual_seed(0)
    model = Levels()
    randomise(model)
    graph = capture(model.eval(), (sparse(*frame()),), output)
    args = frame(seed=3, sites=300, batch=2)
    x = sparse(*args)
    graph = capture(model, (x,), output)
    with torch.no_grad():
        expected = model(x)[output]
    found, sites = graph(*args)
    if output == 0:
        assert torch.equal(sites, args[1]) and relative(found, expected) < 2e-6
    else:
        found, sites = ordered(found, sites)
        wanted, wanted_sites = ordered(expected.features, expected.indices)
        assert torch.equal(sites, wanted_sites) and relative(found, wanted) < 2e-6


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "on other sites": (
        lambda m, x: torch.cat([x.features, m.down(x).features], 1),
        r"cat in the model's own.*different sites.*dim=1",
    ),
    "of sites": (
        lambda m, x: torch.cat([x.features, x.features], 0),
        r"cat in the model's own.*mixes rows|other rows",
    ),
    "mean over rows": (lambda m, x: x.features - x.features.mean(0), "mean in the model's own.*rows"),
    "statistics that are not finite": (lambda m, x: m.bad(x.features.relu()), r"batch_norm.*not finite"),
    "softmax": (lambda m, x: x.features.softmax(1), "softmax in the model's own"),
    "a norm of each row behind a Linear": (
        lambda m, x: nn.functional.normalize(m.linear(x.features)),
        "in the model's own",
    ),
    "a product with a number per site": (
        lambda m, x: m.fine(x.features) * x.features.sum(1, keepdim=True),
        "mul in the model's own",
    ),
    "what is no layer before a BatchNorm": (
        lambda m, x: m.fine(m.up(x).features.relu()),
        r"'up' \(SparseConvTranspose3d\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_channel_map_is_refused_by_name(case: str) -> None:
    body, message = REFUSED[case]
    bad = norm()
    bad.running_var.fill_(-1.0)
    model = Case(
        lambda m, x: given_features(x, body(m, x)),
        16 if "other sites" in case else 8,
        a=subm(8, 8),
        bad=bad,
        fine=norm(),
        linear=nn.Linear(8, 8),
        up=spconv.SparseConvTranspose3d(8, 8, 3, dilation=2, bias=False),
        down=spconv.SparseConv3d(8, 8, 3, 2, bias=False),
    ).eval()
    with pytest.raises(CaptureError, match=message):
        capture(model, (sparse(*frame()),))
