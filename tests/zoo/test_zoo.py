# SPDX-License-Identifier: Apache-2.0
"""The encoders of the zoo, their random weights, and lean imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import fx

from scn_fx.capture import capture
from scn_fx.graph import operator_name
from scn_fx.zoo import (
    CenterPointEncoder,
    SecondEncoder,
    SecondResEncoder,
    demo_frame,
    demo_model,
    scale_weights,
)

GRID = (64, 64, 40)
CHANNELS = (4, 8, 8, 16)


class Spread(fx.Interpreter):
    """Records the standard deviation of every convolution's result."""

    def run(self, *args: torch.Tensor) -> list[float]:
        self.found: list[float] = []
        super().run(*args)
        return self.found

    def run_node(self, node: fx.Node) -> object:
        result = super().run_node(node)
        if operator_name(node) == "convolution":
            self.found.append(float(result.std()))
        return result


def test_importing_the_zoo_imports_neither_torch_nor_spconv() -> None:
    code = "import sys, scn_fx.zoo; sys.exit(bool({'torch', 'spconv', 'cumm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_demo_model_keeps_the_size_of_its_activations() -> None:
    frame = demo_frame(1, 2000, grid=GRID)
    model = demo_model(1, frame, channels=CHANNELS, grid=GRID)
    assert not model.training
    graph = capture(model, model.arguments(*frame))
    spread = Spread(graph).run(*frame)
    assert len(spread) == 21
    assert min(spread) > 0.3
    assert max(spread) < 3.0


def test_statistics_are_those_of_the_frame() -> None:
    import spconv.pytorch as spconv

    features, indices = demo_frame(1, 2000, grid=GRID)
    model = demo_model(1, (features, indices), channels=CHANNELS, grid=GRID)
    conv, norm = model.conv_input[0], model.conv_input[1]
    tensor = spconv.SparseConvTensor(features, indices, [GRID[2] + 1, GRID[1], GRID[0]], 1)
    values, _ = capture(spconv.SparseSequential(conv).eval(), (tensor,))(features, indices)
    assert torch.allclose(norm.running_mean, values.mean(0), rtol=1e-2)
    assert torch.allclose(norm.running_var, values.var(0, unbiased=False), rtol=1e-2)


def test_the_demo_model_is_chosen_by_its_seed() -> None:
    first, again, other = (demo_model(seed, channels=CHANNELS, grid=GRID).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("weight"))


@pytest.mark.parametrize("encoder", [SecondEncoder, SecondResEncoder])
def test_other_encoders_can_be_scaled(encoder: type) -> None:
    torch.manual_seed(0)
    model = encoder(5, GRID, (*CHANNELS, 16)).eval()
    frame = demo_frame(2, 1500, grid=GRID)
    scale_weights(model, *frame)
    graph = capture(model, model.arguments(*frame), output=model.main_output)
    assert min(Spread(graph).run(*frame)) > 0.3


def test_a_demo_frame_is_inside_its_grid_and_distinct() -> None:
    features, indices = demo_frame(0, 3000, grid=GRID)
    assert features.shape == (len(indices), 5)
    assert indices.dtype == torch.int32
    assert len(torch.unique(indices, dim=0)) == len(indices)
    assert bool((indices >= 0).all())
    assert bool((indices < torch.tensor([1, GRID[2] + 1, GRID[1], GRID[0]])).all())


def test_the_width_of_the_levels_is_free() -> None:
    model = CenterPointEncoder(3, (4, 4, 6, 6), grid=GRID, bias=False).eval()
    features, indices = demo_frame(0, 1000, grid=GRID, in_channels=3)
    dense = capture(model, model.arguments(features, indices))(features, indices)
    assert dense.shape == (1, 12, 8, 8)
