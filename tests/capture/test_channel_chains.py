# SPDX-License-Identifier: Apache-2.0
"""Any chain of operations on channels is what spconv and torch compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scn_fx.capture import capture
from tests.capture.frames import assert_same_as_spconv, frame, randomise, sparse
from tests.capture.test_channel_maps import norm, subm


class Mix(nn.Module):
    """One operation on channels, of any width, with stored parameters."""

    def __init__(self, step: str, width: int) -> None:
        super().__init__()
        self.step = step
        self.weight, self.shift, self.scale = (
            nn.Parameter(torch.randn(shape)) for shape in ((5, width), (5,), (width,))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        match self.step:
            case "linear":
                return nn.functional.linear(x, self.weight, self.shift)
            case "scale":
                return x * self.scale - 1
            case "reverse":
                return torch.cat(x.split(1, 1)[::-1], 1)
            case "double":
                return torch.stack([x, -x], 2).flatten(1)
            case "sum":
                return x.unflatten(1, (1, -1)).sum(1) + x.mean(1, keepdim=True)
            case "slice":
                return x[:, : max(1, x.shape[1] // 2)]
        return x.relu()


STEPS = ("linear", "scale", "reverse", "double", "sum", "slice", "relu")


class Chain(nn.Module):
    def __init__(self, steps: list[str]) -> None:
        super().__init__()
        self.first, self.steps, width = subm(4, 6), nn.Sequential(), 6
        for step in steps:
            self.steps.append(Mix(step, width))
            width = self.steps[-1](torch.zeros(2, width)).shape[1]
        self.last = subm(width, 3)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        return self.last(x.replace_feature(self.steps(x.features)))


class Gated(nn.Module):
    """A BatchNorm of joined features that a convolution of one offset reads in parts, and a product whole.

    `after` says which of them comes first.
    """

    def __init__(self, after: bool) -> None:
        super().__init__()
        self.first, self.beside, self.gate = subm(4, 3), subm(3, 1), subm(4, 4, 1)
        self.norm, self.after = norm(4), after

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        y = x.replace_feature(self.norm(torch.cat([self.beside(x).features, x.features], 1)))
        twice = y.features + 1.0 if not self.after else y.features
        gate = torch.sigmoid(self.gate(y).features)
        return y.replace_feature((y.features if self.after else twice) * gate)


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("dialect", ["libspconv", "scn_fx"])
def test_readers_of_parts_and_of_the_whole_see_one_value(dialect: str, after: bool) -> None:
    """What goes into the weights of a part's layer is no longer to be done by who reads the whole."""
    model = randomise(Gated(after)).eval()
    graph = capture(model, (sparse(*frame()),), dialect=dialect)
    assert_same_as_spconv(graph, model, *frame(seed=1))


@settings(max_examples=40)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6), st.integers(0, 1000))
def test_any_chain_of_them(steps: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    model, args = Chain(steps).eval(), frame(seed=seed % 7)
    graph = capture(model, (sparse(*args),))
    with torch.no_grad():
        expected = model(sparse(*args)).features
    # A ReLU may leave nothing but zeros.
    assert float((graph(*args)[0] - expected).abs().max()) <= 1e-5 * float(expected.abs().max() + 1e-3)
