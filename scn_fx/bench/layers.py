# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes: profiles of several runs, layer by layer, beside the machine's peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from statistics import median
from typing import Any

from scn_fx.errors import ArgumentError
from scn_fx.operators.table import OPERATORS
from scn_fx.runtime.engine import StageTime

__all__ = [
    "GROUPS",
    "LayerRow",
    "active_pairs",
    "convolves",
    "group_of",
    "layer_rows",
    "stage_medians",
    "totals",
    "weight_widths",
]

GROUPS = ("kernel maps", "convolutions", "rest")
"""What stages are summed up to: sites and kernel maps of the whole network, convolutions with their fused
epilogues, everything else (checks, loading the features, the dense map)."""


@dataclass(frozen=True)
class LayerRow:
    """One stage of the frame."""

    kind: str
    name: str
    precision: str | None
    milliseconds: float
    """Median over the runs."""
    macs: int
    """Multiply-accumulates of the active pairs; 0 for stages without arithmetic."""
    gops: float | None
    """10^9 operations per second; a multiply-accumulate is two."""
    peak_share: float | None
    """Part of the machine's measured peak for this arithmetic, 0 to 1."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def convolves(kind: str) -> bool:
    """Whether stages and steps of this kind multiply by weights; the engine names them as the operator."""
    spec = OPERATORS.get(kind)
    return spec is not None and spec.weighted


def group_of(kind: str) -> str:
    """The member of `GROUPS` that a stage of this kind belongs to."""
    if convolves(kind):
        return "convolutions"
    return "kernel maps" if "map" in kind or "sites" in kind else "rest"


def stage_medians(profiles: Sequence[Sequence[StageTime]]) -> list[tuple[StageTime, float]]:
    """The stages of the first profile, each with the median of its seconds over all of them.

    Raises ArgumentError if there are no profiles or their stages differ.
    """
    kinds = {tuple((stage.kind, stage.name) for stage in stages) for stages in profiles}
    if len(kinds) != 1:
        found = "other stages in some" if kinds else "none"
        raise ArgumentError(f"Expected profiles of one engine on one frame, got {found}.")
    return [(stages[0], median(stage.seconds for stage in stages)) for stages in zip(*profiles, strict=True)]


def layer_rows(
    profiles: Sequence[Sequence[StageTime]],
    precisions: Mapping[str, str],
    peaks: Mapping[str, float | None],
) -> list[LayerRow]:
    """One row per stage, in the order of execution.

    Args:
        profiles: what `Engine.profile` returned for repeated runs of one frame.
        precisions: arithmetic of each convolution by name.
        peaks: operations per second by "fp32" (for fp16 as well: its arithmetic is float32) and "int8"; None
            or absent where it was not measured.

    Raises ArgumentError if there are no profiles or their stages differ.
    """
    rows = []
    for stage, seconds in stage_medians(profiles):
        precision = precisions.get(stage.name) if convolves(stage.kind) else None
        speed = 2 * stage.macs / seconds if stage.macs and seconds > 0 else None
        peak = peaks.get("int8" if precision == "int8" else "fp32") if precision else None
        rows.append(
            LayerRow(
                kind=stage.kind,
                name=stage.name,
                precision=precision,
                milliseconds=seconds * 1e3,
                macs=stage.macs,
                gops=speed / 1e9 if speed else None,
                peak_share=speed / peak if speed and peak else None,
            )
        )
    return rows


def totals(profiles: Sequence[Sequence[StageTime]]) -> dict[str, float]:
    """Milliseconds by group, and their "total": medians over the runs of each run's sum."""
    stage_medians(profiles)  # they belong together
    sums: dict[str, list[float]] = {group: [] for group in (*GROUPS, "total")}
    for stages in profiles:
        run = dict.fromkeys(GROUPS, 0.0)
        for stage in stages:
            run[group_of(stage.kind)] += stage.seconds
        for group in GROUPS:
            sums[group].append(run[group])
        sums["total"].append(sum(run.values()))
    return {group: median(values) * 1e3 for group, values in sums.items()}


def weight_widths(model: Mapping[str, Any]) -> dict[str, int]:
    """Multiply-accumulates per active pair (in x out channels) of each convolution by name.

    `model` is what `scn_fx.files.onnx_models.read_model` returns.
    """
    shapes = {name: entry["shape"] for name, entry in model["initializers"].items()}
    return {
        node["name"]: prod((shapes[node["inputs"][1]][0], shapes[node["inputs"][1]][-1]))
        for node in model["nodes"]
        if node["op_type"] == "SparseConvolution"
    }


def active_pairs(stages: Sequence[StageTime], widths: Mapping[str, int]) -> int:
    """Entries of all kernel maps that a frame's convolutions use, each map once per layer that reads it."""
    return sum(stage.macs // widths[stage.name] for stage in stages if stage.macs and stage.name in widths)
