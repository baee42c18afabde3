# SPDX-License-Identifier: Apache-2.0
"""From a model's name to a captured graph: models of the zoo, or the user's own by import path."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from scn_fx.capture.capture import capture
from scn_fx.dimensions import DIMENSIONS, narrowed
from scn_fx.errors import CalibrationError
from scn_fx.graph import set_metadata
from scn_fx.importing import import_object
from scn_fx.input_grid import graph_grid, network_grid, set_grid
from scn_fx.lidar import (
    CENTERPOINT_GRID,
    GRID_SYNTAX,
    GRIDS,
    NetworkGrid,
    VoxelGrid,
    parse_grid,
    synthetic_points,
    voxelize,
)
from scn_fx.operators.dialects import LIBSPCONV, SCN_FX
from scn_fx.quant.checkpoint_files import file_sha256
from scn_fx.quant.model_outputs import parse_outputs
from scn_fx.quant.weights import load_weights

__all__ = ["ZOO", "load_graph", "load_weights"]

ZOO: Mapping[str, str] = {
    "centerpoint": "CenterPointEncoder",
    "second": "SecondEncoder",
    "second-res": "SecondResEncoder",
    "pillarnet": "PillarNetEncoder",
}
"""Names of zoo models, and their classes in `scn_fx.zoo`."""


def load_graph(
    model: str,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_prefix: str | None = None,
    checkpoint_layout: str | None = None,
    grid: VoxelGrid | str | None = None,
    outputs: Sequence[str] = (),
    native: bool = False,
) -> fx.GraphModule:
    """Make a model, load its weights and capture it.

    `model` is a name in `ZOO`, or "package.module:callable" (the working folder is importable). The callable
    takes no arguments and returns one of

    - an `nn.Module` with a method ``arguments(features, indices)`` that gives the arguments of its forward
      (and ``main_output``, the output to capture), or whose forward takes ``(features, indices,
      batch_size)``, ``(features, indices, batch_size, grid)`` as CenterPoint's does, or OpenPCDet's
      ``batch_dict``, of voxels or, in two dimensions, of pillars;
    - a tuple ``(module, args)`` or ``(module, args, output)`` for `scn_fx.capture`;
    - a graph that is captured already.

    `grid` (a preset's name or what else `scn_fx.lidar.parse_grid` takes) is the voxel grid that the network
    was trained with; the graph records it. Left out, it is the preset with a zoo model's name, else
    CenterPoint's; other models record none, unless the callable's graph does. A forward that takes the grid
    needs it given.

    Without a checkpoint a zoo model has random weights, the same every time, scaled on a synthetic sweep so
    that activations keep their size. `checkpoint_prefix` and `checkpoint_layout` are those of `load_weights`.
    `outputs` are the outputs to capture in the place of the main one, as texts: see
    `quant.model_outputs.parse_outputs`. `native` captures for the dialect scn_fx, see `scn_fx.capture`. The
    graph's metadata say which model and checkpoint it comes from.
    Raises CalibrationError for a name, checkpoint or return value that does not serve, GridError for a grid
    of another shape than the network's or one that contradicts the graph's, and capture's errors.
    """
    if checkpoint is None and (checkpoint_prefix is not None or checkpoint_layout is not None):
        raise CalibrationError("A checkpoint's prefix or layout was given, but no checkpoint. Give both.")
    if isinstance(grid, str):
        grid = parse_grid(grid)
    if ":" not in model:
        grid = grid or GRIDS.get(model, CENTERPOINT_GRID)
        made: Any = _from_zoo(model, grid, checkpoint)
    else:
        made = _import(model)()
    output: Any = None
    args: Any = None
    chosen = parse_outputs(outputs)
    if isinstance(made, fx.GraphModule) and "scn_fx" in made.meta:
        if checkpoint is not None:
            raise CalibrationError(
                f"{model} returns a captured graph, whose weights are final; leave the checkpoint out."
            )
        if native:
            raise CalibrationError(
                f"{model} returns a captured graph, whose form is chosen. Capture it with "
                'dialect="scn_fx", or return the module and its args.'
            )
        if outputs:
            raise CalibrationError(
                f"{model} returns a captured graph, whose outputs are chosen. Leave "
                f"{', '.join(outputs)} out, or return the module and its args."
            )
        if grid is not None:
            advice = "The grid asked for must be the model's own."
            network_grid(made).check_grid(grid, f"{model} is asked for in", advice)
            if graph_grid(made) is None:
                set_grid(made, grid)
        set_metadata(made, model=model, checkpoint=None)
        return made
    if isinstance(made, tuple) and len(made) in (2, 3):
        made, args, output = (*made, None)[:3]
    if not isinstance(made, nn.Module):
        raise CalibrationError(
            f"{model} must return an nn.Module, (module, args[, output]) or a captured graph, got "
            f"{type(made).__name__}."
        )
    if checkpoint is not None:
        load_weights(made, checkpoint, prefix=checkpoint_prefix, layout=checkpoint_layout)
    made.eval()
    if args is None:
        args = _arguments(made, model, grid)
    if chosen is not None:
        output = chosen
    elif output is None:
        output = _main_output(made)
    graph = capture(made, args, output=output, grid=grid, dialect=SCN_FX if native else LIBSPCONV)
    origin = None if checkpoint is None else _origin(checkpoint)
    set_metadata(graph, model=model, checkpoint=origin, native=native)
    return graph


def _origin(checkpoint: str | Path) -> dict[str, str]:
    """What the graph's metadata keep of a checkpoint: the file's name, and the SHA-256 of its content."""
    return {"file": Path(checkpoint).name, "sha256": file_sha256(checkpoint)}


def _from_zoo(name: str, grid: VoxelGrid, checkpoint: str | Path | None) -> nn.Module:
    if name not in ZOO:
        raise CalibrationError(
            f"Unknown model {name!r}; expected one of {', '.join(ZOO)}, or package.module:callable."
        )
    zoo = importlib.import_module("scn_fx.zoo")
    size = _grid_xyz(grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = getattr(zoo, ZOO[name])(grid=size)
    model.eval()
    if checkpoint is None:
        voxels = voxelize(synthetic_points(sweeps=1), grid)
        if len(voxels) < 2:
            raise CalibrationError(
                f"The random weights of {name} are scaled on a synthetic sweep around the origin, of which "
                f"{len(voxels)} voxels lie in the grid {grid}. Give a checkpoint, or a grid "
                "with the sensor in it."
            )
        channels, ndim = _first_layer(model, name)
        features = torch.from_numpy(voxels.features[:, :channels]).float()
        indices = NetworkGrid(name, ndim=ndim).columns(voxels.indices)
        zoo.randomise_weights(model, features, torch.from_numpy(indices))
    return model


def _grid_xyz(grid: VoxelGrid) -> tuple[int, int, int]:
    z, y, x = grid.box_shape
    return x, y, z


def _import(path: str) -> Callable[[], Any]:
    value = import_object(path, "The model", CalibrationError)
    if not callable(value):
        raise CalibrationError(f"{path} must be callable without arguments, got a {type(value).__name__}.")
    made: Callable[[], Any] = value
    return made


def _first_layer(module: nn.Module, name: str) -> tuple[int, int]:
    """Width and dimensions of the first sparse convolution."""
    for child in module.modules():
        width, ndim = getattr(child, "in_channels", None), getattr(child, "ndim", None)
        if ndim in DIMENSIONS and isinstance(width, int):
            return width, ndim
    raise CalibrationError(f"{name} holds no sparse convolution of 1, 2 or 3 dimensions.")


def _arguments(module: nn.Module, name: str, grid: VoxelGrid | None) -> tuple[Any, ...]:
    """Example arguments of the module's forward, on a few sites near the origin; capture runs none of it."""
    channels, ndim = _first_layer(module, name)
    shape = narrowed(grid.spatial_shape if grid else (8, 8, 8), ndim)
    sites = torch.arange(8)[:, None] % torch.tensor(shape)
    indices = torch.cat([torch.zeros(8, 1, dtype=torch.int64), sites], 1).int()
    features = torch.zeros(8, channels)
    given = getattr(module, "arguments", None)
    if callable(given):
        return tuple(given(features, indices))
    names = [p.name for p in inspect.signature(module.forward).parameters.values() if p.default is p.empty]
    if names == ["batch_dict"]:
        kind = "voxel" if ndim == 3 else "pillar"
        return ({f"{kind}_features": features, f"{kind}_coords": indices, "batch_size": 1},)
    if len(names) == 3:
        return features, indices, 1
    if len(names) == 4:
        if grid is None:
            raise CalibrationError(
                f"{name}: the forward of {type(module).__name__} takes ({', '.join(names)}), so its grid is "
                f"part of the network. Give it: --grid (grid=) takes {GRID_SYNTAX}."
            )
        return features, indices, 1, list(_grid_xyz(grid)[:ndim])
    raise CalibrationError(
        f"{name}: the forward of {type(module).__name__} takes ({', '.join(names)}), which is no known "
        "form. Return (module, args) or (module, args, output) from the callable, as for scn_fx.capture."
    )


def _main_output(module: nn.Module) -> Any:
    """Which output to capture: the module's own word, OpenPCDet's encoded tensor, or the first."""
    takes_dict = "batch_dict" in inspect.signature(module.forward).parameters
    return getattr(module, "main_output", "encoded_spconv_tensor" if takes_dict else 0)
