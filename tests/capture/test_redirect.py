# SPDX-License-Identifier: Apache-2.0
"""Nothing is left behind: not in spconv, not in the model, not in other threads."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from scn_fx.capture import capture
from scn_fx.capture.redirect import patched_attributes, redirected
from scn_fx.capture.tracing import Tracing
from scn_fx.errors import CaptureError
from scn_fx.graph import layers
from tests.capture.frames import frame, sparse

DILATED = spconv.SparseConvTranspose3d(4, 4, 3, dilation=2, bias=False)


def state() -> list[Any]:
    """The objects behind everything that a capture redirects."""
    attributes = [owner.__dict__[name] for owner, name in patched_attributes()]
    return [*attributes, *torch_module._global_forward_pre_hooks.values()]


def same(before: list[Any], after: list[Any]) -> bool:
    return len(before) == len(after) and all(a is b for a, b in zip(before, after, strict=True))


def model(last: nn.Module | None = None) -> nn.Module:
    steps = [spconv.SubMConv3d(4, 4, 3, bias=False), nn.ReLU(inplace=True), *([last] if last else [])]
    return spconv.SparseSequential(*steps).eval()


def test_the_redirection_is_there_and_goes_away() -> None:
    before = state()
    tracing = Tracing(model(), output_bound=10, axes="zyx")
    with redirected(tracing):
        inside = [owner.__dict__[name] for owner, name in patched_attributes()]
        assert not any(a is b for a, b in zip(before, inside, strict=False))
        assert len(state()) == len(before) + 1
    assert same(before, state())


def test_everything_is_restored_after_a_capture() -> None:
    before = state()
    capture(model(), (sparse(*frame()),))
    assert same(before, state())


@pytest.mark.parametrize("last", [nn.Mish(), DILATED, nn.BatchNorm1d(5)])
def test_everything_is_restored_after_a_failure(last: nn.Module) -> None:
    before = state()
    with pytest.raises(CaptureError):
        capture(model(last), (sparse(*frame()),))
    assert same(before, state())


def test_the_model_is_not_touched() -> None:
    captured = model()
    attributes = {name: dict(module.__dict__) for name, module in captured.named_modules()}
    weights = {name: value.clone() for name, value in captured.state_dict().items()}
    tensor = sparse(*frame())
    features, keys = tensor.features.clone(), dict(tensor.indice_dict)
    capture(captured, (tensor,))
    after = {name: dict(module.__dict__) for name, module in captured.named_modules()}
    for name, values in attributes.items():
        assert set(values) == set(after[name])
        # torch.export puts equal copies of lists back; every other object is the one it was.
        kept = (
            v is after[name][k] or (isinstance(v, list) and v == after[name][k]) for k, v in values.items()
        )
        assert all(kept), name
    assert all(torch.equal(value, weights[name]) for name, value in captured.state_dict().items())
    assert torch.equal(tensor.features, features)
    assert tensor.indice_dict == keys


def test_other_threads_run_spconv_meanwhile() -> None:
    running, features_and_indices = model(), frame()
    with torch.no_grad():
        expected = running(sparse(*features_and_indices)).features.clone()
    found: list[torch.Tensor] = []

    def run() -> None:
        with torch.no_grad():
            found.append(running(sparse(*features_and_indices)).features)

    with redirected(Tracing(running, output_bound=10, axes="zyx")):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)


def test_threads_capture_one_after_the_other() -> None:
    before = state()
    counts: list[int] = []

    def run(steps: int) -> None:
        convs = [spconv.SubMConv3d(4, 4, 3, bias=False) for _ in range(steps)]
        graph = capture(spconv.SparseSequential(*convs).eval(), (sparse(*frame()),))
        counts.append(len(layers(graph)))

    threads = [threading.Thread(target=run, args=(steps,)) for steps in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [1, 2, 3]
    assert same(before, state())
