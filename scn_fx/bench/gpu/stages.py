# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes on a GPU, stage by stage, beside what its tensor cores allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scn_fx.bench.layers import convolves, stage_medians
from scn_fx.runtime.engine import StageTime

__all__ = ["TENSOR_RATES", "StageRow", "stage_rows"]

TENSOR_RATES: Mapping[str, Mapping[str, float]] = {
    "NVIDIA H100 80GB HBM3": {"int8": 1979e12, "fp16": 989e12},
    "NVIDIA H200": {"int8": 1979e12, "fp16": 989e12},
}
"""Dense operations per second of the tensor cores, from the data sheets, by the name of the GPU."""


@dataclass(frozen=True)
class StageRow:
    """One stage of the frame."""

    kind: str
    name: str
    precision: str | None
    microseconds: float
    """Median over the runs."""
    macs: int
    """Multiply-accumulates of the active pairs; 0 for stages without arithmetic."""
    limit: float | None
    """Microseconds that the tensor cores need at their full rate, if that is known."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def stage_rows(
    profiles: Sequence[Sequence[StageTime]],
    precisions: Mapping[str, str],
    macs: Mapping[str, int],
    rates: Mapping[str, float],
) -> list[StageRow]:
    """One row per stage, in the order of execution.

    Args:
        profiles: what `Engine.profile` returned for repeated runs of one frame.
        precisions: arithmetic of each convolution by name.
        macs: multiply-accumulates of each convolution by name: a profile of the CPU engine counts them.
        rates: operations per second by precision, a member of `TENSOR_RATES`; empty if it is not known.

    Raises ArgumentError if there are no profiles or their stages differ.
    """
    rows = []
    for stage, seconds in stage_medians(profiles):
        precision = precisions.get(stage.name) if convolves(stage.kind) else None
        work = macs.get(stage.name, 0) if precision else 0
        rate = rates.get(precision) if precision else None
        rows.append(
            StageRow(
                kind=stage.kind,
                name=stage.name,
                precision=precision,
                microseconds=seconds * 1e6,
                macs=work,
                limit=2 * work / rate * 1e6 if work and rate else None,
            )
        )
    return rows
