# SPDX-License-Identifier: Apache-2.0
"""An spconv model run by our operators without capture: same numbers as its graph, and it can be trained."""

from __future__ import annotations

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.capture import capture, run_with_own_operators
from scn_fx.errors import ArgumentError, BoundError, CaptureError
from scn_fx.zoo import CenterPointEncoder, demo_frame, demo_model
from tests.capture.frames import frame, sparse
from tests.capture.test_redirect import same, state

GRID = (32, 32, 40)


def test_it_gives_what_the_captured_graph_gives() -> None:
    features, indices = demo_frame(0, 600, grid=GRID)
    model = demo_model(0, (features, indices), channels=(4, 8, 8, 8), grid=GRID)
    graph = capture(model, model.arguments(features, indices))
    before = state()
    with torch.no_grad():
        dense, levels = run_with_own_operators(model, *model.arguments(features, indices))
        again, _ = run_with_own_operators(model, *model.arguments(features, indices))
        expected = graph(features, indices)
    assert same(before, state())
    # The graph has BatchNorm folded into its kernels.
    assert torch.allclose(dense, expected, rtol=1e-3, atol=1e-3) and torch.equal(dense, again)
    assert sorted(levels) == ["conv1", "conv2", "conv3", "conv4"]


def test_gradients_and_batch_statistics_are_those_of_training() -> None:
    features, indices = demo_frame(1, 400, grid=GRID)
    torch.manual_seed(0)
    model = CenterPointEncoder(5, (4, 8, 8, 8), grid=GRID).train()
    mean = model.conv_input[1].running_mean.clone()
    dense, _ = run_with_own_operators(model, *model.arguments(features, indices))
    dense.square().mean().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    assert not torch.equal(model.conv_input[1].running_mean, mean)
    # One direction of the first kernel against a difference quotient.
    weight = model.conv_input[0].weight
    slope, step = float(weight.grad.square().sum()), 3e-5  # smaller than most kinks
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * weight.grad
            dense, _ = run_with_own_operators(model, *model.arguments(features, indices))
            values.append(float(dense.double().square().mean()))
            weight -= sign * step * weight.grad
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=0.05)


def test_what_it_refuses() -> None:
    data = sparse(*frame())
    dilated = spconv.SparseConvTranspose3d(4, 4, 3, dilation=2, bias=False)
    with pytest.raises(CaptureError, match=r"SparseConvTranspose3d\).*dilation"):
        run_with_own_operators(dilated, data)
    conv = spconv.SparseSequential(spconv.SubMConv3d(4, 4, 3, bias=False), nn.ReLU())
    with pytest.raises(BoundError):
        run_with_own_operators(conv, data, output_bound=1)
    for bound in (0, True, 1.5):
        with pytest.raises(ArgumentError, match="output_bound is a number of sites"):
            run_with_own_operators(conv, data, output_bound=bound)
