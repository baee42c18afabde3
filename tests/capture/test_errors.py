# SPDX-License-Identifier: Apache-2.0
"""What cannot be captured is named by its path and class, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from cumm import tensorview as tv
from torch import nn

from scn_fx.capture import capture
from scn_fx.errors import CaptureError
from tests.capture.frames import GRID, frame, sparse


def subm(**options: Any) -> Any:
    return spconv.SubMConv3d(4, 4, 3, **{"bias": False, **options})


def down(**options: Any) -> Any:
    return spconv.SparseConv3d(4, 4, 3, 2, padding=1, **{"bias": False, **options})


def inverse(key: str = "d", kernel: int = 3) -> Any:
    return spconv.SparseInverseConv3d(4, 4, kernel, indice_key=key, bias=False)


def with_activation(conv: Any, activation: Any) -> Any:
    conv.act_type = activation
    return conv


def untracked() -> Any:
    return nn.BatchNorm1d(4, track_running_stats=False)


SEQUENCES: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "2D": (lambda: [spconv.SparseConv2d(4, 4, 3)], r"'0' \(SparseConv2d\)"),
    "mish": (lambda: [subm(), nn.Mish()], r"mish in module '1' \(Mish\).*The activations of sparse layers"),
    "elu": (lambda: [subm(), nn.ELU()], r"elu in module '1' \(ELU\)"),
    "batch norm without statistics": (
        lambda: [subm(), untracked()],
        r"'1' \(BatchNorm1d\) normalises with the statistics of the frame.*track_running_stats",
    ),
    "act_type of 1x1x1": (
        lambda: [with_activation(spconv.SubMConv3d(4, 4, 1, bias=False), tv.gemm.Activation.ReLU)],
        "spconv ignores",
    ),
    "half": (lambda: [subm().half()], r"weight of torch\.float16.*model\.float\(\)"),
    "key of a strided layer": (lambda: [down(indice_key="d"), down(indice_key="d")], "Only submanifold"),
    "subm key for strided": (lambda: [subm(indice_key="d"), down(indice_key="d")], "Only submanifold"),
    "strided key for subm": (lambda: [down(indice_key="d"), subm(indice_key="d")], "Only submanifold"),
    "other kernel": (
        lambda: [subm(indice_key="d"), spconv.SubMConv3d(4, 4, 5, bias=False, indice_key="d")],
        r"kernel_size \[3, 3, 3\], but has \[5, 5, 5\]",
    ),
    "other grid": (lambda: [subm(indice_key="d"), down(), subm(indice_key="d")], "input_spatial_shape"),
    "inverse without partner": (lambda: [inverse()], "no layer before it has that key"),
    "inverse of subm": (lambda: [subm(indice_key="d"), inverse()], "submanifold and changes no sites"),
    "inverse of other kernel": (lambda: [down(indice_key="d"), inverse(kernel=5)], "kernel_size"),
    "inverse elsewhere": (lambda: [down(indice_key="d"), down(), inverse()], "input grid"),
    "empty output grid": (lambda: [spconv.SparseConv3d(4, 4, 15, bias=False)], "leaves no output site"),
    "channels": (lambda: [spconv.SubMConv3d(5, 4, 3, bias=False)], "expects features of 5 channels"),
}


@pytest.mark.parametrize("case", SEQUENCES)
def test_an_unsupported_layer_is_named(case: str) -> None:
    make, text = SEQUENCES[case]
    with pytest.raises(CaptureError, match=text):
        capture(spconv.SparseSequential(*make()).eval(), (sparse(*frame()),))


class Model(nn.Module):
    """A model whose forward is a function of its two convolutions and a sparse tensor."""

    def __init__(self, program: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__()
        self.first, self.second = subm(indice_key="a"), subm(indice_key="a")
        self.norm = nn.BatchNorm1d(4)
        self._program = program

    def forward(self, features: torch.Tensor, indices: torch.Tensor, batch_size: Any = 1) -> Any:
        x = spconv.SparseConvTensor(features, indices, list(GRID), batch_size)
        return self._program(self.first, self.second, x)


PROGRAMS: dict[str, tuple[Callable[[Any, Any, Any], Any], str]] = {
    "concatenation of sites": (
        lambda a, b, x: x.replace_feature(torch.cat([a(x).features, b(x).features], 0)),
        "cat in the model's own forward",
    ),
    "product": (
        lambda a, b, x: x.replace_feature(a(x).features * b(x).features.sum(1, keepdim=True)),
        "mul in the model's own",
    ),
    "voxel count": (lambda a, b, x: a(x) if x.features.shape[0] > 100 else b(x), "number"),
    "branch on values": (lambda a, b, x: a(x) if bool(x.features.sum() > 0) else b(x), "values"),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_an_unsupported_program_is_named(case: str) -> None:
    program, text = PROGRAMS[case]
    with pytest.raises(CaptureError, match=text):
        capture(Model(program).eval(), frame())


class Mixed(nn.Module):
    """Two strided convolutions that reach different sites."""

    def __init__(self, program: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__()
        self.left, self.right = down(), spconv.SparseConv3d(4, 4, 5, 2, padding=2, bias=False)
        self._program = program

    def forward(self, x: Any) -> Any:
        return self._program(self.left(x), self.right(x), x)


def test_values_of_different_sites_are_not_combined() -> None:
    programs: list[Callable[[Any, Any, Any], Any]] = [
        lambda left, right, x: left + right,
        lambda left, right, x: left.replace_feature(right.features),
        lambda left, right, x: left.replace_feature(right.features).dense(),
        lambda left, right, x: x.replace_feature(right.features),
    ]
    for program in programs:
        with pytest.raises(CaptureError, match=r"sites|sparse tensor"):
            capture(Mixed(program).eval(), (sparse(*frame()),))


def test_training_mode_is_refused() -> None:
    model = Model(lambda a, b, x: a(x))
    with pytest.raises(CaptureError, match=r"Model\) is in training mode.*model\.eval\(\)"):
        capture(model.train(), frame())


def test_a_batch_norm_in_training_mode_is_named() -> None:
    model = spconv.SparseSequential(subm(), spconv.SparseSequential(nn.BatchNorm1d(4))).eval()
    model[1][0].train()
    with pytest.raises(CaptureError, match=r"'1\.0' \(BatchNorm1d\).*is in training mode"):
        capture(model, (sparse(*frame()),))


def test_indices_must_be_int32() -> None:
    features, indices = frame()
    with pytest.raises(CaptureError, match=r"indices\.int\(\)"):
        capture(Model(lambda a, b, x: a(x)).eval(), (features, indices.long()))


def test_a_batch_size_from_the_data_is_refused() -> None:
    features, indices = frame()
    with pytest.raises(CaptureError, match="Python"):
        capture(Model(lambda a, b, x: a(x)).eval(), (features, indices, indices[:, 0].max() + 1))


def test_a_missing_spconv_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from scn_fx.errors import MissingPackageError

    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name.startswith("spconv"):
            raise ModuleNotFoundError("No module named 'spconv'", name="spconv")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingPackageError, match=r"scn-fx\[spconv-cpu\]"):
        capture(nn.PairwiseDistance().eval(), (torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.int32)))
