# SPDX-License-Identifier: Apache-2.0
"""Layers, weights and kernel maps are told apart by what they are, not by a spelling or an address."""

from __future__ import annotations

import io
import pickle
import warnings
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

import quant
import scn_fx
from scn_fx.capture import capture
from scn_fx.errors import CaptureError
from scn_fx.graph import layers
from tests.capture.frames import assert_same_as_spconv, frame, randomise, relative, sparse


def subm(inputs: int = 4, outputs: int = 4, **options: Any) -> Any:
    return spconv.SubMConv3d(inputs, outputs, 3, bias=False, **options)


class Chain(nn.Module):
    """Runs named layers one after the other, some of them twice."""

    def __init__(self, tree: dict[str, nn.Module], order: list[str]) -> None:
        super().__init__()
        for path, module in tree.items():
            parent: nn.Module = self
            *outer, name = path.split(".")
            for part in outer:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent._modules[part]  # type: ignore[assignment]
            parent.add_module(name, module)
        self._order = order

    def forward(self, x: Any) -> Any:
        for path in self._order:
            x = self.get_submodule(path)(x)
        return x


CHAINS: dict[str, tuple[list[str], list[str]]] = {
    "a dot and an underscore": (["a.1", "a_1"], ["a.1", "a_1"]),
    "deep": (["a.b.c", "a_b.c", "a.b_c", "a_b_c"], ["a_b_c", "a.b_c", "a_b.c", "a.b.c"]),
    "what a second call would be called": (["a", "a_1"], ["a", "a", "a_1", "a"]),
    "other characters": (["a-b", "a b", "a_b"], ["a-b", "a b", "a_b"]),
    "names of torch.fx": (["graph", "code", "meta", "_graph"], ["graph", "code", "meta", "_graph"]),
    "names of parameters": (["a", "a_weight", "a_bias"], ["a", "a_weight", "a_bias"]),
    "keywords": (["class", "class_", "in.def"], ["class", "class_", "in.def"]),
    "letters that Python reads as others": (["\uff46", "f", "µ", "größe"], ["f", "\uff46", "größe", "µ"]),
    "what ends a string": (['a"b', "a\nb", "a\\b"], ["a\nb", 'a"b', "a\\b"]),
    "digits": (["0", "_0", "0_"], ["0", "_0", "0_"]),
}


@pytest.mark.parametrize("case", CHAINS)
def test_paths_that_look_alike_keep_their_weights(case: str) -> None:
    paths, order = CHAINS[case]
    torch.manual_seed(0)
    model = Chain({path: subm() for path in paths}, order).eval()
    features, indices = frame()
    graph = capture(model, (sparse(features, indices),))
    assert_same_as_spconv(graph, model, features, indices)
    found = {layer.name: layer.weight for layer in layers(graph)}
    assert len(found) == len(order)
    for path in paths:
        assert torch.equal(found[path], model.get_submodule(path).weight)
    again = pickle.loads(pickle.dumps(graph))
    assert torch.equal(again(features, indices)[0], graph(features, indices)[0])
    for exporter in ("dynamo", "torchscript"):
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = scn_fx.export_options(graph, exporter=exporter)
            view = scn_fx.onnx_view(graph)
            torch.onnx.export(view, (features,), file, dynamo=exporter == "dynamo", **options)
        engine = scn_fx.Engine(file.getvalue(), precision="fp32")
        assert relative(torch.as_tensor(engine(features, indices)[0]), graph(features, indices)[0]) <= 1e-2


def test_layers_of_other_widths_under_names_alike() -> None:
    model = Chain({"a.1": subm(4, 8), "a_1": subm(8, 16)}, ["a.1", "a_1"]).eval()
    features, indices = frame()
    assert_same_as_spconv(capture(model, (sparse(features, indices),)), model, features, indices)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = spconv.SparseSequential(subm(indice_key="a"), nn.BatchNorm1d(4), nn.ReLU())
        self.conv2 = subm(indice_key="a")

    def forward(self, x: Any) -> Any:
        x = self.conv1(x)
        y = self.conv2(x)
        return y.replace_feature(y.features + x.features)


class Twice(nn.Module):
    """One encoder under two names; `through` is the one that the forward uses."""

    def __init__(self, through: str) -> None:
        super().__init__()
        self.backbone = Encoder()
        self.encoders = nn.ModuleDict({"lidar": self.backbone})
        self._through = through

    def forward(self, x: Any) -> Any:
        return self.get_submodule(self._through)(x)


@pytest.mark.parametrize("through", ["backbone", "encoders.lidar"])
def test_a_module_under_two_names_has_the_first(through: str) -> None:
    model = randomise(Twice(through))
    features, indices = frame()
    graph = capture(model, (sparse(features, indices),))
    assert [layer.name for layer in layers(graph)] == ["backbone.conv1.0", "backbone.conv2", "backbone.add"]
    assert_same_as_spconv(graph, model, features, indices)
    found = quant.calibrate(
        graph, [(features, indices)], method="max", precision={"*conv2": "fp16"}, progress=False
    )
    assert found.precisions["backbone.conv2"] == "fp16"


def test_a_parameter_that_two_layers_share() -> None:
    first, second = subm(), subm()
    second.weight = first.weight
    model = Chain({"a": first, "b": second}, ["a", "b"]).eval()
    features, indices = frame()
    assert_same_as_spconv(capture(model, (sparse(features, indices),)), model, features, indices)


@pytest.mark.parametrize("key", ["", "0", " ", "a.b", 7])
def test_any_indice_key_names_a_map_that_the_engine_reads(key: Any) -> None:
    down = spconv.SparseConv3d(4, 6, 3, 2, padding=1, bias=False, indice_key=key)
    up = spconv.SparseInverseConv3d(6, 4, 3, indice_key=key, bias=False)
    model = spconv.SparseSequential(subm(), down, up).eval()
    features, indices = frame()
    graph = capture(model, (sparse(features, indices),))
    assert_same_as_spconv(graph, model, features, indices)
    books = [layer.rulebook for layer in layers(graph)]
    assert all(books)
    assert books[1] == books[2] != books[0]
    file = io.BytesIO()
    options = scn_fx.export_options(graph)
    torch.onnx.export(scn_fx.onnx_view(graph), (features,), file, dynamo=True, **options)
    engine = scn_fx.Engine(file.getvalue())
    assert relative(torch.as_tensor(engine(features, indices)[0]), graph(features, indices)[0]) <= 1e-2


@pytest.mark.parametrize(
    "change", [lambda i: i.int(), lambda i: i.contiguous(), lambda i: i.detach(), lambda i: i[:]]
)
def test_sites_are_the_same_under_another_python_object(change: Any) -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = subm(indice_key="a"), subm(indice_key="a")

        def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
            x = self.a(spconv.SparseConvTensor(features, indices, [9, 12, 13], 1))
            x.indices = change(x.indices)
            return self.b(x).features

    features, indices = frame()
    graph = capture(Again().eval(), (features, indices))
    assert torch.equal(graph(features, indices)[1], indices)


def test_a_dot_in_an_attribute_may_not_make_the_path_of_another_module() -> None:
    model = Chain({"a.b": subm()}, ["a.b"])
    model._modules["a.b"] = subm()
    with pytest.raises(CaptureError, match=r"Two modules of the model are called 'a\.b'"):
        capture(model.eval(), (sparse(*frame()),))
