# SPDX-License-Identifier: Apache-2.0
"""Where a graph comes from (model, checkpoint, grid), and what of it explains that a cache does not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scn_fx.errors import CalibrationError
from scn_fx.graph import metadata

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["cause_of_difference", "check_grid", "provenance"]

_KEYS = ("model", "checkpoint", "grid", "native")


def provenance(graph: GraphModule) -> dict[str, Any]:
    """What the graph's metadata know of its origin, as plain JSON data; keys of `_KEYS` that are known.

    `model` is a name or import path, `checkpoint` {"file", "sha256"} or None if the graph was loaded without
    one, `grid` {"point_range": six numbers, "voxel_size": three}, `native` whether it has the layers of the
    dialect scn_fx.
    """
    known = {key: value for key, value in metadata(graph).items() if key in _KEYS}
    if known.get("grid") is None:
        known.pop("grid", None)
    plain: dict[str, Any] = json.loads(json.dumps(known))
    return plain


def cause_of_difference(cache: Mapping[str, Any], graph: Mapping[str, Any]) -> str:
    """Why a cache and a graph differ, from what both say of their origin, and what to do about it."""
    if "checkpoint" in cache and "checkpoint" in graph and cache["checkpoint"] != graph["checkpoint"]:
        made, loaded = _checkpoint(cache["checkpoint"]), _checkpoint(graph["checkpoint"])
        if graph["checkpoint"] is None:
            advice = "Give that checkpoint (checkpoint=..., --checkpoint on the command line)."
        elif cache["checkpoint"] is None:
            advice = "Calibrate anew with the checkpoint."
        else:
            advice = "Give the checkpoint that the cache was made with, or calibrate anew."
        return f"The cache was made {made}; this graph was loaded {loaded}. {advice}"
    if "native" in cache and "native" in graph and cache["native"] != graph["native"]:
        made = "of another form" if graph["native"] else "of the dialect scn_fx"
        return (
            f"The cache was made with a graph {made} (--native on the command line, dialect=... of capture). "
            "Give the same there, or calibrate anew."
        )
    for key in ("model", "grid"):
        if key in cache and key in graph and cache[key] != graph[key]:
            return (
                f"The cache was made with the {key} {_text(cache[key])}; this graph has {_text(graph[key])}. "
                f"Give the same {key}, or calibrate anew."
            )
    return "Structure, geometry and weights must be those it was calibrated with; calibrate anew."


def check_grid(cache: Mapping[str, Any], graph: Mapping[str, Any], path: str) -> None:
    """CalibrationError if both know their voxel grid, and it is not the same (shapes alone do not tell)."""
    made, has = cache.get("grid"), graph.get("grid")
    if made is not None and has is not None and made != has:
        raise CalibrationError(
            f"{path} was calibrated on the grid {_text(made)}; this graph has {_text(has)}. Voxels of "
            "another grid give other values: give the same grid, or calibrate anew."
        )


def _checkpoint(origin: Any) -> str:
    if not isinstance(origin, Mapping):
        return "without a checkpoint"
    return f"with the checkpoint {origin.get('file')} (SHA-256 {str(origin.get('sha256'))[:12]}...)"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {value[key]}" for key in value)
    return repr(value)
