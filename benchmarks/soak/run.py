# SPDX-License-Identifier: Apache-2.0
"""The soak itself: one engine, many frames, and what went wrong."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.soak.frames import BATCH, SoakFrame, draw_frame, largest_frame, soak_onnx
from benchmarks.soak.memory import ALLOWED, Watch, gpu_bytes, resident_bytes
from scn_fx import Engine
from scn_fx.errors import ScnError
from tests.oracle.network import run_network

__all__ = ["PRECISIONS", "Outcome", "soak"]

PRECISIONS = ("int8", "fp16", "fp32")
CHECKED_EACH = 1000
"""Frames between two that are compared."""


@dataclass
class Outcome:
    """What one engine did. `wrong` says what must not have happened; an engine is right if it is empty."""

    precision: str
    device: str
    frames: int = 0
    sites: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    seconds: float = 0.0
    growth: int = 0
    gpu_growth: int | None = None
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "refused": dict(self.refused)}


def _arrays(results: Any) -> list[np.ndarray]:
    """The arrays of a call's results, one after another."""
    flat: list[np.ndarray] = []
    for result in results if isinstance(results, tuple) else (results,):
        flat.extend(_arrays(result) if isinstance(result, tuple) else [np.asarray(result)])
    return flat


def _same(got: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return len(got) == len(expected) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(got, expected, strict=True)
    )


def _oracle(onnx: bytes, frame: SoakFrame) -> list[np.ndarray]:
    """What the independent reference says of a frame, in the order of an engine's results."""
    flat: list[np.ndarray] = []
    for output in run_network(onnx, frame.features, frame.indices, BATCH).outputs:
        flat += [output.values] if output.sites is None else [output.values, output.sites]
    return flat


def _compare(outcome: Outcome, onnx: bytes, frame: SoakFrame, got: list[np.ndarray], make: Any) -> None:
    outcome.compared += 1
    if not _same(got, _arrays(make()(frame.features, frame.indices, BATCH))):
        outcome.wrong.append(f"frame {outcome.frames}: other bits than a new engine's")
    if outcome.precision == "int8" and not _same(got, _oracle(onnx, frame)):
        outcome.wrong.append(f"frame {outcome.frames}: other bits than the oracle's")


def soak(precision: str, device: str, frames: int, seed: int = 0, threads: int | None = None) -> Outcome:
    """Run `frames` random frames through one engine; stops at the tenth thing that is wrong."""
    onnx = soak_onnx(precision == "int8")

    def make() -> Engine:
        return Engine(onnx, device, precision="fp32" if precision == "fp32" else None, threads=threads)

    engine, rng = make(), np.random.default_rng(seed)
    outcome = Outcome(precision, device)
    first = largest_frame(rng)
    engine(first.features, first.indices, BATCH)
    host = Watch(resident_bytes)
    gpu = Watch(gpu_bytes(device)) if device != "cpu" else None
    start = time.perf_counter()
    for number in range(frames):
        frame = draw_frame(rng)
        outcome.frames += 1
        outcome.sites += len(frame.features)
        try:
            got = _arrays(engine(frame.features, frame.indices, BATCH))
            if frame.error is not None:
                outcome.wrong.append(f"frame {number}: a frame that is wrong ({frame.kind}) was run")
            elif number % CHECKED_EACH == 0:
                _compare(outcome, onnx, frame, got, make)
        except ScnError as error:
            outcome.refused[frame.kind] += 1
            if frame.error is None or type(error) is not frame.error:
                outcome.wrong.append(f"frame {number} ({frame.kind}): {type(error).__name__}: {error}")
        if number % CHECKED_EACH == CHECKED_EACH - 1 or frames < 20 * CHECKED_EACH:
            host.sample()
            if gpu:
                gpu.sample()
        if len(outcome.wrong) >= 10:
            break
    outcome.seconds = time.perf_counter() - start
    outcome.growth = host.growth()
    outcome.gpu_growth = gpu.growth() if gpu else None
    for what, growth in (("memory", outcome.growth), ("GPU memory", outcome.gpu_growth or 0)):
        if growth > ALLOWED:
            outcome.wrong.append(f"{what} grew by {growth:,} bytes")
    return outcome
