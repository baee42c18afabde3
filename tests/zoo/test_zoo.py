# SPDX-License-Identifier: Apache-2.0
"""The encoders of the zoo, their random weights, and lean imports."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import fx

import quant
from scn_fx.capture import capture
from scn_fx.errors import GridError
from scn_fx.exporting import export_onnx
from scn_fx.graph import layers, operator_name
from scn_fx.input_grid import graph_grid
from scn_fx.lidar import GRIDS, VoxelGrid
from scn_fx.quant.models import load_graph
from scn_fx.runtime import Engine, compare
from scn_fx.zoo import (
    CenterPointEncoder,
    PillarNetEncoder,
    SecondEncoder,
    SecondResEncoder,
    demo_frame,
    demo_model,
    randomise_weights,
    scale_weights,
)
from tests.capture.frames import randomise, relative
from tests.oracle.compare import assert_same_bits
from tests.oracle.network import run_network

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


def pillar_frame(seed: int = 0, in_channels: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """The pillars of a demo frame: one voxel of each column."""
    features, indices = demo_frame(seed, 2000, grid=GRID, in_channels=in_channels)
    columns, rows = torch.unique(indices[:, [0, 2, 3]], dim=0, return_inverse=True)
    first = torch.full((len(columns),), len(rows)).scatter_reduce(0, rows, torch.arange(len(rows)), "amin")
    return features[first], columns.int()


def test_the_pillar_encoder_has_20_convolutions_on_pillars() -> None:
    torch.manual_seed(0)
    model = PillarNetEncoder(5, GRID, CHANNELS).eval()
    frame = pillar_frame()
    randomise_weights(model, *frame)
    graph = capture(model, model.arguments(*frame), output=model.main_output)
    found = layers(graph)
    assert Counter(layer.kind for layer in found) == {
        "convolution": 20, "add": 8, "scatter_dense": 1, "reshape": 1,
    }  # fmt: skip
    assert [layer.name for layer in found][:4] == ["conv1.0", "conv1.3.conv1", "conv1.3.conv2", "conv1.3.add"]
    assert {layer.rulebook for layer in found if layer.kind == "convolution"} == {
        *(f"res{level}" for level in range(1, 5)), *(f"spconv{level}" for level in range(2, 5)),
    }  # fmt: skip
    assert graph.meta["scn_fx"]["ndim"] == 2
    dense = graph(*frame)
    assert dense.shape == (1, CHANNELS[-1], GRID[1] // 8, GRID[0] // 8)
    spread = Spread(graph).run(*frame)
    assert min(spread) > 0.3
    assert max(spread) < 3.0


@pytest.mark.parametrize("output", ["x_conv2", "x_conv4"])
def test_the_pillar_encoder_agrees_with_spconv(output: str) -> None:
    torch.manual_seed(0)
    model = randomise(PillarNetEncoder(5, GRID, CHANNELS, bias=False))  # spconv's CPU build has no bias
    features, indices = pillar_frame()
    args = model.arguments(features, indices)
    graph = capture(model, args, output=("multi_scale_2d_features", output))
    found = graph(features, indices)
    with torch.no_grad():
        expected = model(*args)["multi_scale_2d_features"][output]
    if isinstance(found, torch.Tensor):
        assert relative(found, expected) <= 1e-5
        return
    rows, wanted = (
        sorted(range(len(at)), key=lambda row, at=at: at[row].tolist()) for at in (found[1], expected.indices)
    )
    assert torch.equal(found[1][rows], expected.indices[wanted])
    assert relative(found[0][rows], expected.features[wanted]) <= 1e-5


def test_the_pillar_encoder_in_int8_has_one_result(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = PillarNetEncoder(5, GRID, CHANNELS).eval()
    frame = pillar_frame()
    randomise_weights(model, *frame)
    graph = capture(model, model.arguments(*frame), output=model.main_output)
    quant.calibrate(graph, [frame], method="max")
    export_onnx(graph, tmp_path / "scn.onnx")
    engine = Engine(tmp_path / "scn.onnx")
    half, rows = frame[0].half().numpy(), frame[1].numpy()
    (expected,) = run_network(tmp_path / "scn.onnx", half, rows, 1).outputs
    assert_same_bits(engine(half, rows), expected.values, "engine")
    assert_same_bits(graph(frame[0].half().float(), frame[1]).numpy(), expected.values, "graph")
    compare(graph, engine, [frame]).check()


def test_the_pillar_encoder_by_name_takes_a_grid_of_pillars() -> None:
    grid = VoxelGrid((-12.8, -12.8, -5.0, 12.8, 12.8, 3.0), (0.4, 0.4, 8.0), extra_z=0)
    graph = load_graph("pillarnet", grid=grid)
    assert graph_grid(graph) == grid
    with pytest.raises(GridError, match=r"one cell along z, but the frame has some at z = 1"):
        load_graph("pillarnet", grid=VoxelGrid(grid.point_range, (0.4, 0.4, 4.0), extra_z=0))
    assert GRIDS["pillarnet"].spatial_shape == (1, 1440, 1440)


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
