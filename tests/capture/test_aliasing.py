# SPDX-License-Identifier: Apache-2.0
"""Random forwards full of aliases and in-place operators: what is captured computes what the model computes.

Half of what models do between convolutions returns its input itself (dropout in evaluation, `.float()` of a
float, `contiguous()`, views), and the rest may work in place. Each program here is a random sequence of such
steps over a pool of values; spconv runs it on real data, the captured graph on the same frame.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.capture import capture
from scn_fx.errors import CaptureError
from tests.capture.frames import GRID, frame, ordered, relative

SEEDS = 110
CHANNELS = 4

ALIASES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "dropout": lambda x: nn.functional.dropout(x, 0.5, False),
    "Dropout": nn.Dropout(0.5).eval(),
    "Dropout1d": nn.Dropout1d(0.5).eval(),
    "AlphaDropout": nn.AlphaDropout(0.5).eval(),
    "Identity": nn.Identity(),
    "float": lambda x: x.float(),
    "to": lambda x: x.to(torch.float32),
    "to device": lambda x: x.to(x.device),
    "type_as": lambda x: x.type_as(x),
    "contiguous": lambda x: x.contiguous(),
    "view": lambda x: x.view(x.shape),
    "view -1": lambda x: x.view(-1, CHANNELS),
    "reshape": lambda x: x.reshape(-1, CHANNELS),
    "slice": lambda x: x[:],
    "ellipsis": lambda x: x[..., :],
    "unsqueeze": lambda x: x.unsqueeze(1).squeeze(1),
    "twice turned": lambda x: x.t().t(),
    "expand": lambda x: x.expand(-1, CHANNELS),
    "detach": lambda x: x.detach(),
    "narrow": lambda x: x.narrow(1, 0, CHANNELS),
    "split": lambda x: x.split(CHANNELS, 1)[0],
    "chunk": lambda x: x.chunk(1, 1)[0],
}
IDLE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {  # torch refuses some on views
    "detach_": lambda x: x.detach_(),
    "resize_": lambda x: x.resize_(x.shape),
    "squeeze_": lambda x: x.squeeze_(1),
}
COPIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "clone": lambda x: x.clone(),
    "relu": torch.relu,
    "clamp": lambda x: x.clamp(min=0),
    "threshold": lambda x: nn.functional.threshold(x, 0.0, 0.0),
    "to copy": lambda x: x.to(torch.float32, copy=True),
}
WRITES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu_": torch.relu_,
    "inplace ReLU": nn.ReLU(inplace=True),
    "clamp_": lambda x: x.clamp_(min=0),
    "clamp_min_": lambda x: x.clamp_min_(0),
    "flat relu_": lambda x: x.view(-1).relu_(),
    "square relu_": lambda x: x.t().relu_(),
}


class Program(nn.Module):
    """Runs a list of steps (kind, name, operands) over a pool of values that begins with the features."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.convs = nn.ModuleList()
        self.steps: list[tuple[str, str, tuple[int, ...]]] = []
        values = 1
        for _ in range(draw.randint(3, 10)):
            kind = draw.choices(("conv", "alias", "copy", "write", "add", "add_"), (3, 5, 2, 4, 2, 2))[0]
            name = ""
            # The newest value most of the time, so that programs are deep rather than wide.
            of = tuple(draw.choice((values - 1, draw.randrange(values))) for _ in range(2))
            if kind == "conv":
                self.convs.append(self._conv(draw))
                name = str(len(self.convs) - 1)
            elif kind in ("alias", "copy", "write"):
                names = list({"alias": ALIASES, "copy": COPIES, "write": WRITES}[kind])
                name = draw.choice(names if draw.random() < 0.15 else names[:-2])  # rarely another shape
            values += kind in ("conv", "alias", "copy", "add")
            self.steps.append((kind, name, of))
        self.last = self._conv(draw)
        self.chosen = draw.choice((values - 1, draw.randrange(values)))
        self.eval()

    @staticmethod
    def _conv(draw: random.Random) -> Any:
        generator = torch.Generator().manual_seed(draw.randrange(1 << 30))
        conv = spconv.SubMConv3d(CHANNELS, CHANNELS, 3, bias=False, indice_key="a")
        with torch.no_grad():
            conv.weight.normal_(0.0, 0.3, generator=generator)
        if draw.random() < 0.4:
            norm = nn.BatchNorm1d(CHANNELS)
            with torch.no_grad():
                norm.running_mean.normal_(0.0, 0.3, generator=generator)
                norm.running_var.uniform_(0.3, 2.0, generator=generator)
            return spconv.SparseSequential(conv, norm)
        return spconv.SparseSequential(conv)

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
        x = spconv.SparseConvTensor(features, indices, list(GRID), 1)
        pool = [features]
        for kind, name, (first, second) in self.steps:
            a, b = pool[first], pool[second]
            if kind == "conv":
                x = self.convs[int(name)](x.replace_feature(a))
                pool.append(x.features)
            elif kind == "alias":
                pool.append(ALIASES[name](a))
            elif kind == "copy":
                pool.append(COPIES[name](a))
            elif kind == "write":
                WRITES[name](a)
            elif kind == "add":
                pool.append(a + b)
            else:
                a += b
        return self.last(x.replace_feature(pool[self.chosen]))

    def __repr__(self) -> str:
        return f"{self.steps} → {self.chosen}"


# A refusal is right where memory is read in two shapes after a write, or where a value is none of a graph's.
REFUSALS = ("another shape", "in place", "is not supported")


def test_random_programs_compute_what_the_model_computes() -> None:
    equal, refused = 0, []
    features, indices = frame(sites=60)
    other, sites = frame(sites=90, seed=1)
    for seed in range(SEEDS):
        program = Program(seed)
        with torch.no_grad():
            expected = program(other.clone(), sites)
        try:
            graph = capture(program, (features, indices))
        except CaptureError as error:
            assert any(text in str(error) for text in REFUSALS), (seed, program, str(error))
            refused.append((seed, str(error)))
            continue
        given = other.clone()
        found, rows = ordered(*graph(given, sites))
        wanted, wanted_rows = ordered(expected.features, expected.indices)
        assert torch.equal(rows, wanted_rows)
        assert relative(found, wanted) <= 1e-5, (seed, program)
        assert torch.equal(given, other), "a graph does not write into its inputs"
        equal += 1
    assert equal >= 90, refused


@pytest.mark.parametrize("name", [*ALIASES, *IDLE])
def test_every_alias_is_written_through(name: str) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = spconv.SubMConv3d(CHANNELS, CHANNELS, 3, bias=False)
            self.last = spconv.SubMConv3d(CHANNELS, CHANNELS, 3, bias=False)

        def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
            x = self.first(spconv.SparseConvTensor(features, indices, list(GRID), 1))
            torch.relu_({**ALIASES, **IDLE}[name](x.features))
            return self.last(x)

    model, (features, indices) = Two().eval(), frame()
    with torch.no_grad():
        expected = model(features, indices)
    found, _ = ordered(*capture(model, (features, indices))(features, indices))
    assert relative(found, ordered(expected.features, expected.indices)[0]) <= 1e-5
