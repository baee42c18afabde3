# SPDX-License-Identifier: Apache-2.0
"""Commands that take a network as a model with its calibration cache, or as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scn_fx.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch.fx import GraphModule

    from scn_fx.lidar import VoxelGrid

__all__ = ["frames_of", "named_network", "network_graph"]


def named_network(argument: str | None, option: str | None) -> str:
    """The one network that the command line names, as an argument or with --model."""
    if (argument is None) == (option is None):
        raise click.UsageError("Name one network: MODEL (or --model), a model or an ONNX file.")
    return str(argument or option)


def network_graph(network: str, options: dict[str, Any]) -> GraphModule:
    """The graph of a model (with the ranges of --cache, if it is given) or of an ONNX file (with its own).

    Raises ArgumentError for options that go with models alone.
    """
    names = ("checkpoint", "checkpoint_prefix", "checkpoint_layout", "cache")
    outputs = options.get("outputs") or ()
    if network.endswith(".onnx"):
        given = [f"--{name.replace('_', '-')}" for name in names if options.get(name) is not None]
        if given:
            raise ArgumentError(f"{given[0]} goes with a model; {network} holds its own weights and ranges.")
        if outputs:
            raise ArgumentError(f"--model-output goes with a model; {network} has the outputs that it has.")
        if options.get("native"):
            raise ArgumentError(f"--native goes with a model; {network} has the layers that it has.")
        from scn_fx.runtime.file_graph import file_graph

        return file_graph(network).graph
    from scn_fx.cli.models import load_model

    chosen: dict[str, Any] = {name: options.get(name) for name in names}
    native = bool(options.get("native"))
    return load_model(network, grid=options.get("grid"), outputs=outputs, native=native, **chosen)


def frames_of(
    path: Path, graph: GraphModule, grid: VoxelGrid | None, point_format: str | None, limit: int | None
) -> Iterable[Sequence[Any]]:
    """Frames of files or of the user's code, for this graph's grid."""
    from scn_fx.input_grid import network_grid
    from scn_fx.quant.frame_source import find_frames

    found = find_frames(path, point_format=point_format, limit=limit)
    return found.for_network(network_grid(graph), grid)
