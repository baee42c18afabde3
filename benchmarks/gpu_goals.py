# SPDX-License-Identifier: Apache-2.0
"""What the CUDA engine wants to reach on an H100, checked against a report of `scn_fx.bench.gpu`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.goals import Goal

__all__ = ["check_gpu_goals"]

_GPU = "H100"
_FRAME, _VOXELS = "nuscenes_voxels", 79_745
_MS = {"int8": 0.20, "fp16": 0.30}
_PEER_MS, _AHEAD = {"int8": 1.38, "fp16": 1.79}, 4.0
"""Milliseconds of NVIDIA's libspconv 1.1.10 on that frame and GPU; how far ahead the engine wants to be."""
_MEMORY = 250e6


def check_gpu_goals(report: dict[str, Any]) -> list[Goal]:
    """All goals; none on another GPU, or without the frame and network that they are for."""
    frames = [f for f in report["frames"] if (f["frame"], f["voxels"]) == (_FRAME, _VOXELS)]
    if _GPU not in report["device"]["name"] or not frames or report["settings"]["network"] == "small":
        return []
    return [*_speed(frames[0]), *_memory(report["memory"])]


def _speed(frame: dict[str, Any]) -> Iterator[Goal]:
    times = {
        run["precision"]: run["event"]["milliseconds"]["median"]
        for run in frame["runs"]
        if run["engine"] == "scn-fx" and run["graph"]
    }
    for precision, wanted in _MS.items():
        yield _at_most(f"{precision}, graph, {_FRAME}", wanted, times.get(precision))
    for precision, peer in _PEER_MS.items():
        text = f"{precision}: {_AHEAD:g} times ahead of libspconv's {peer} ms"
        yield _at_most(text, peer / _AHEAD, times.get(precision))


def _at_most(text: str, wanted: float, found: float | None) -> Goal:
    known = found is not None
    return Goal(
        text,
        f"<= {wanted:.3f} ms",
        f"{found:.4f} ms" if known else None,
        found <= wanted if known else None,
    )


def _memory(memory: dict[str, Any]) -> Iterator[Goal]:
    if memory["frame"] != _FRAME:
        return
    for row in memory["rows"]:
        found = row["first_frame_bytes"]
        graph = "graph" if row["graph"] else "no graph"
        text = f"GPU memory, {row['precision']}, {graph}"
        yield Goal(text, f"<= {_MEMORY / 1e6:g} MB", f"{found / 1e6:.1f} MB", found <= _MEMORY)
