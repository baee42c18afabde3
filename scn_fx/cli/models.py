# SPDX-License-Identifier: Apache-2.0
"""From the options of a command to a captured graph, calibrated by a cache file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scn_fx.exporting import quiet

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from scn_fx.lidar import VoxelGrid

__all__ = ["load_model"]


def load_model(
    model: str,
    *,
    checkpoint: Path | None = None,
    checkpoint_prefix: str | None = None,
    checkpoint_layout: str | None = None,
    grid: VoxelGrid | None = None,
    outputs: tuple[str, ...] = (),
    native: bool = False,
    cache: Path | None = None,
    precisions: tuple[str, ...] = (),
) -> GraphModule:
    """Capture a zoo or imported model (see `quant.models.load_graph`) and put a cache's ranges into it."""
    from scn_fx.quant import load_cache, set_precision
    from scn_fx.quant.models import load_graph
    from scn_fx.quant.script import parse_precision

    with quiet():
        graph = load_graph(
            model,
            checkpoint=checkpoint,
            checkpoint_prefix=checkpoint_prefix,
            checkpoint_layout=checkpoint_layout,
            grid=grid,
            outputs=outputs,
            native=native,
        )
    if cache is not None:
        load_cache(graph, cache)
    if precisions:
        set_precision(graph, parse_precision(precisions))
    return graph
