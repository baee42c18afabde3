# SPDX-License-Identifier: Apache-2.0
"""Contexts in a forward, wrappers around a model, arguments of all kinds, and what is said about the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.capture import capture
from scn_fx.capture.explain import of_user
from scn_fx.errors import CaptureError, MissingPackageError
from scn_fx.graph import layers
from tests.capture.frames import GRID, frame, relative


class Model(nn.Module):
    """A model whose forward is a function of the model and its arguments."""

    def __init__(self, program: Callable[..., Any]) -> None:
        super().__init__()
        self.conv = spconv.SubMConv3d(4, 4, 3, bias=False)
        self.norm = nn.BatchNorm1d(4)
        self._program = program
        self.eval()

    def body(self, features: Any, indices: Any, batch: Any = 1, grid: Any = GRID) -> Any:
        x = self.conv(spconv.SparseConvTensor(features, indices, grid, batch))
        return torch.relu(self.norm(x.features))

    def forward(self, *args: Any) -> Any:
        return self._program(self, *args)


def check(model: nn.Module, args: tuple[Any, ...], given: tuple[torch.Tensor, ...], **options: Any) -> Any:
    graph = capture(model, args, **options)
    with torch.no_grad():
        expected = model(*args, **options.get("kwargs", {}))
    found = graph(*given)
    found = found[0] if isinstance(found, tuple) else found
    assert relative(found, expected) <= 1e-5
    return graph


def _autocast(device: str, enabled: bool) -> Callable[..., Any]:
    def program(m: Any, f: Any, i: Any) -> Any:
        with torch.autocast(device, enabled=enabled):
            return m.body(f, i)

    return program


def _nested(m: Any, f: Any, i: Any) -> Any:
    with torch.enable_grad(), torch.autocast("cuda", enabled=False), torch.no_grad():
        f = torch.relu(f.float())
        with torch.autocast("cpu", enabled=False):
            x = m.conv(spconv.SparseConvTensor(f, i, GRID, 1))
        with torch.enable_grad():
            torch.relu_(x.features)
    return x.features


@torch.no_grad()
def _decorated(m: Any, f: Any, i: Any) -> Any:
    return m.body(f, i)


def _inference(m: Any, f: Any, i: Any) -> Any:
    with torch.inference_mode(False):
        return m.body(f, i)


CONTEXTS: dict[str, Callable[..., Any]] = {
    "autocast that is off": _autocast("cuda", False),
    "autocast of the CPU that is off": _autocast("cpu", False),
    "autocast of another device": _autocast("cuda", True),
    "nested": _nested,
    "decorated": _decorated,
    "inference_mode off": _inference,
    "set_grad_enabled": lambda m, f, i: (torch.set_grad_enabled(True), m.body(f, i))[1],
    "record_function": lambda m, f, i: torch.autograd.profiler.record_function("x")(m.body)(f, i),
}


@pytest.mark.parametrize("case", CONTEXTS)
def test_contexts_that_change_nothing_are_captured(case: str) -> None:
    grad = torch.is_grad_enabled()
    try:
        args = frame()
        check(Model(CONTEXTS[case]), args, args)
    finally:
        torch.set_grad_enabled(grad)


def test_an_autocast_that_computes_in_lower_precision_is_refused_where_it_is_needed() -> None:
    with pytest.raises(CaptureError, match=r"torch\.autocast\('cpu'\), in lower precision.*enabled=False"):
        capture(Model(_autocast("cpu", True)), frame())

    def outside(m: Any, f: Any, i: Any) -> Any:
        return m.body(f, i), _autocast("cpu", True)(m, f, i)

    assert [layer.name for layer in layers(capture(Model(outside), frame()))] == ["conv"]


def test_half_features_widened_by_the_forward() -> None:
    features, indices = frame()
    half = features.half()
    check(Model(lambda m, f, i: m.body(f.float(), i)), (half, indices), (half, indices))
    with pytest.raises(CaptureError, match="Leave casts out"):
        capture(Model(lambda m, f, i: m.body(f.half().float(), i)), (features, indices))


# ReLU under its other names, and what looks like it.
RELUS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "clamp(0, inf)": lambda x: x.clamp(0, float("inf")),
    "clamp_min": lambda x: x.clamp_min(0.0),
    "clip": lambda x: torch.clip(x, min=0),
    "hardtanh": lambda x: nn.functional.hardtanh(x, 0.0, float("inf")),
    "threshold": lambda x: nn.functional.threshold(x, 0, 0),
    "leaky_relu(0)": lambda x: nn.functional.leaky_relu(x, 0.0),
}


@pytest.mark.parametrize("name", RELUS)
def test_relu_by_another_name(name: str) -> None:
    def program(m: Any, f: Any, i: Any) -> Any:
        return RELUS[name](m.conv(spconv.SparseConvTensor(f, i, GRID, 1)).features)

    args = frame()
    (layer,) = layers(check(Model(program), args, args))
    assert layer.activation == "ReLU"


OTHERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "LeakyReLU": nn.LeakyReLU(0.2),
    "SiLU": nn.functional.silu,
    "Sigmoid": torch.sigmoid,
    "Tanh": nn.Tanh(),
    "GELU": nn.GELU(),
    "GELUTanh": nn.GELU(approximate="tanh"),
    "ReLU6": nn.ReLU6(inplace=True),
    "Hardswish": nn.Hardswish(),
    "Hardsigmoid": nn.functional.hardsigmoid,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_activations_are_fused(name: str) -> None:
    def program(m: Any, f: Any, i: Any) -> Any:
        return OTHERS[name](m.conv(spconv.SparseConvTensor(f, i, GRID, 1)).features)

    args = frame()
    (layer,) = layers(check(Model(program), args, args))
    assert layer.activation == name


@pytest.mark.parametrize(
    "activation",
    [
        nn.Mish(),
        nn.ELU(),
        nn.Hardtanh(),
        lambda x: x.clamp(min=0.1),
        lambda x: x.clamp(max=1),
        nn.Softplus(),
    ],
)
def test_other_activations_are_refused(activation: Any) -> None:
    def program(m: Any, f: Any, i: Any) -> Any:
        return activation(m.conv(spconv.SparseConvTensor(f, i, GRID, 1)).features)

    with pytest.raises(CaptureError, match="The activations of sparse layers are ReLU, "):
        capture(Model(program), frame())


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    import torch.distributed as distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: nn.DataParallel(m).cpu(),  # it moves the model to a GPU, if there is one
        nn.parallel.DistributedDataParallel,
        torch.compile,
        lambda m: torch.compile(nn.parallel.DistributedDataParallel(m)),
    ],
)
def test_wrappers_are_looked_through(wrap: Any) -> None:
    model = Model(lambda m, f, i: m.body(f, i))
    (layer,) = layers(capture(wrap(model).eval(), frame()))
    assert layer.name == "conv"


@pytest.mark.usefixtures("process_group")
def test_a_wrapper_inside_the_model_is_named_with_what_to_do() -> None:
    model = Model(lambda m, f, i: m.inner(f, i))
    model.inner = nn.parallel.DistributedDataParallel(Model(lambda m, f, i: m.body(f, i)))
    with pytest.raises(
        CaptureError, match=r"'inner' \(DistributedDataParallel\).*model\.inner = model\.inner\.module"
    ):
        capture(model.eval(), frame())
    model.inner = model.inner.module
    assert layers(capture(model, frame()))[0].name == "inner.conv"


class EasyDict(dict[str, Any]):
    __getattr__ = dict.__getitem__


class Config(dict[str, Any]):
    """Keeps its items as attributes too, as easydict does."""

    def __init__(self, **items: Any) -> None:
        super().__init__()
        for key, value in items.items():
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)


@dataclass
class Data:
    features: Any
    indices: Any
    size: int = 1


class Tuple(NamedTuple):
    features: Any
    indices: Any


CONTAINERS: dict[str, Callable[[Any, Any], Any]] = {
    "dict": lambda f, i: {"features": f, "indices": i},
    "EasyDict": lambda f, i: EasyDict(features=f, indices=i),
    "easydict": lambda f, i: Config(features=f, indices=i, rest=[1]),
    "dataclass": lambda f, i: Data(f, i),
    "named tuple": lambda f, i: Tuple(f, i),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_containers_of_all_kinds(case: str) -> None:
    features, indices = frame()

    def program(m: Any, d: Any) -> Any:
        values = (d["features"], d["indices"]) if case == "dict" else (d.features, d.indices)
        if case == "easydict":
            assert values[0] is d["features"]
        return m.body(*values)

    given = CONTAINERS[case](features, indices)
    graph = check(Model(program), (given,), (features, indices))
    assert {"features", "indices"} <= {
        n.name.removeprefix("arg_0_") for n in graph.graph.find_nodes(op="placeholder")
    }


BATCHES: dict[str, Any] = {"np.int64": np.int64(1), "np.int32": np.int32(1), "int": 1}


@pytest.mark.parametrize("case", BATCHES)
def test_batch_sizes_are_integers_of_any_kind(case: str) -> None:
    features, indices = frame()
    check(Model(lambda m, f, i, b: m.body(f, i, b)), (features, indices, BATCHES[case]), (features, indices))


def test_grids_are_sequences_of_any_kind() -> None:
    features, indices = frame()
    for grid in (list(GRID), np.array(GRID), torch.Size(GRID)):
        model = Model(lambda m, f, i, g: m.body(f, i, 1, list(g)))
        check(model, (features, indices, grid), (features, indices))


def test_arguments_by_keyword() -> None:
    class Keywords(Model):
        def forward(self, *, coords: Any, voxels: Any, batch: int = 1) -> Any:  # type: ignore[override]
            return self.body(voxels, coords, batch)

    features, indices = frame()
    model = Keywords(lambda m: None)
    graph = check(model, (), (features, indices), kwargs={"voxels": features, "coords": indices})
    assert [n.name for n in graph.graph.find_nodes(op="placeholder")] == ["voxels", "coords"]
    with pytest.raises(CaptureError, match=r"Pass coords, voxels, batch by keyword: kwargs="):
        capture(model, (features, indices))


def _refused(program: Callable[..., Any], *args: Any) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        capture(Model(program), args)
    return caught.value


def test_a_batch_size_read_from_the_coordinates(capfd: pytest.CaptureFixture[str]) -> None:
    features, indices = frame()
    for read in (
        lambda i: int(i[-1, 0]) + 1,
        lambda i: i[:, 0].max().item() + 1,
        lambda i: len(i[:, 0].unique().tolist()),
        lambda i: int((i[:, 0] == 0).sum() > 0),
    ):
        error = _refused(lambda m, f, i, read=read: m.body(f, i, read(i)), features, indices)
        text = str(error)
        assert "from the voxels' values or their number" in text
        assert "test_contexts.py:" in text or "Layer 'conv'" in text, "where in the user's code"
        assert "must be a Python number among args" in text
        assert len(text) < 700
        assert "torch" not in text.replace("test_contexts", "")
    assert capfd.readouterr() == ("", "")


def test_a_batch_size_that_is_a_tensor() -> None:
    features, indices = frame()
    error = _refused(lambda m, f, i, b: m.body(f, i, int(b)), features, indices, torch.tensor(1))
    assert "arg_2 as a Python number instead of a tensor" in str(error)


def test_code_that_reads_values(capfd: pytest.CaptureFixture[str]) -> None:
    features, indices = frame()
    for program in (
        lambda m, f, i: m.body(torch.from_numpy(f.numpy()), i),
        lambda m, f, i: m.body(f.data, i),
    ):
        assert "reads the values of tensors" in str(_refused(program, features, indices))
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_model_is_told_with_its_line() -> None:
    lines = ["the model's own", "second line"]

    def program(m: Any, f: Any, i: Any) -> Any:
        raise ValueError("\n".join(lines))

    text = str(_refused(program, *frame()))
    assert "ValueError: the model's own." in text
    assert "test_contexts.py:" in text
    assert "second line" not in text


def test_an_error_that_is_being_handled_is_not_taken_for_the_cause() -> None:
    def program(m: Any, f: Any, i: Any) -> Any:
        raise ValueError("inside")

    try:
        raise CaptureError("an older one")
    except CaptureError:
        text = str(_refused(program, *frame()))
    assert "inside" in text
    assert "older" not in text


def test_four_dimensional_networks_are_told_so() -> None:
    features, indices = frame()
    wide = indices[:, [0, 1, 1, 2, 3]].contiguous()
    assert "4D network" in str(_refused(lambda m, f, i: f, features, wide))


def test_numpy_frames_and_points_are_told_so() -> None:
    features, indices = frame()
    assert "torch.from_numpy" in str(_refused(lambda m, f, i: f, features.numpy(), indices.numpy()))
    assert "Voxelising points" in str(_refused(lambda m, p: p, torch.zeros(50, 5)))

    class Sample:
        def __init__(self) -> None:
            self.voxels = features

    text = str(_refused(lambda m, f, i, s: f, features, indices, Sample()))
    assert "Sample that holds tensors (voxels)" in text


def _foreign(module: str) -> Any:
    """A layer with spconv's class name, of another library."""

    class SubMConv3d(nn.Module):
        def forward(self, x: Any) -> Any:
            return x

    SubMConv3d.__module__ = module
    return SubMConv3d()


@pytest.mark.parametrize("library", ["mmcv.ops.sparse_conv", "mmdet3d.ops.spconv.conv", "project.spconv1"])
def test_sparse_layers_of_other_libraries_are_named(library: str) -> None:
    model = Model(lambda m, f, i: m.other(f))
    model.other = _foreign(library)
    with pytest.raises(
        CaptureError, match=rf"'other' \(SubMConv3d\) is a sparse layer of {library}.*spconv 2\.x"
    ):
        capture(model.eval(), frame())


def test_scripted_modules_are_named() -> None:
    model = Model(lambda m, f, i: m.scripted(m.body(f, i)))
    model.scripted = torch.jit.script(nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()).eval())
    with pytest.raises(CaptureError, match=r"'scripted' .*TorchScript module"):
        capture(model.eval(), frame())


def test_spconv_1_is_told_apart_from_no_spconv(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    from types import ModuleType

    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name == "spconv.pytorch":
            raise ModuleNotFoundError("No module named 'spconv.pytorch'", name="spconv.pytorch")
        return real(name, *args)

    old = ModuleType("spconv")
    old.__version__ = "1.2.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spconv", old)
    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingPackageError, match=r"spconv 1\.2\.1 is installed.*2\.x"):
        capture(nn.PairwiseDistance().eval(), frame())


@pytest.mark.parametrize(
    ("file", "users"),
    [
        (os.path.join(os.path.dirname(os.__file__), "site-packages", "pcdet", "models", "detector.py"), True),
        (os.path.join(os.path.dirname(os.__file__), "dist-packages", "pcdet", "detector.py"), True),
        ("/home/somebody/model.py", True),
        (os.__file__, False),
        (torch.nn.functional.__file__, False),
        (str(spconv.conv.__file__), False),
        ("<string>", False),
    ],
)
def test_whose_code_a_file_is(file: str, users: bool) -> None:
    assert of_user(file) is users
