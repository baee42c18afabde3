# SPDX-License-Identifier: Apache-2.0
"""Chooses the layers that stay in float16: as little time as an accuracy budget needs, or the reverse."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from torch.fx import GraphModule

from scn_fx.errors import CalibrationError
from scn_fx.quant.budget import Budget, parse_budget
from scn_fx.quant.evaluation import Evaluator
from scn_fx.quant.layer_sensitivity import Metric
from scn_fx.quant.layer_times import LayerTimes, frame_milliseconds, given_times, measure_times
from scn_fx.quant.mixed import decibels
from scn_fx.quant.precision import (
    PrecisionSpec,
    default_precisions,
    output_precisions,
    resolve,
    write_precisions,
)
from scn_fx.quant.precision_search import Search, spare_time, spend_time
from scn_fx.quant.progress import progress_bar
from scn_fx.quant.ranges import quantizable, read_ranges

__all__ = ["LayerChoice", "PrecisionChoice", "choose_precision"]


@dataclass(frozen=True)
class LayerChoice:
    """One layer of a choice.

    Attributes:
        name: the layer's module path.
        kind: "convolution" or "add".
        precision: what it computes in now.
        decided: whether the choice was free; the others' precision was given.
        sqnr_db: SQNR in dB at the outputs with this layer alone in int8 and the others in float32; None for
            layers whose precision was given.
        int8_ms, fp16_ms: the engine's milliseconds for it; None likewise.
    """

    name: str
    kind: str
    precision: str
    decided: bool
    sqnr_db: float | None = None
    int8_ms: float | None = None
    fp16_ms: float | None = None


@dataclass(frozen=True)
class PrecisionChoice:
    """What `choose_precision` decided; the graph has these precisions.

    Attributes:
        budget: as it was understood.
        layers: every convolution and Add, in the order of the graph.
        precisions, output_precisions: by layer name.
        sqnr_db: SQNR in dB at the outputs against float32, as chosen.
        int8_sqnr_db, fp16_sqnr_db: the same with every free layer in int8 or float16.
        metric, metric_loss: the metric of the float32 network, and what the choice loses of it; None without
            a metric.
        device: where the engine's times are from ("given" if the caller gave them).
        int8_ms, chosen_ms: milliseconds of a frame: measured on whole engines, or predicted from given times.
        frames, evaluations: how many frames and choices were evaluated.
        left_out: layers that stay int8 because float16 cannot hold their values.
        seconds: wall time.
    """

    budget: Budget
    layers: tuple[LayerChoice, ...]
    precisions: dict[str, str]
    output_precisions: dict[str, str]
    sqnr_db: float
    int8_sqnr_db: float
    fp16_sqnr_db: float | None
    metric: float | None
    metric_loss: float | None
    device: str
    int8_ms: float
    chosen_ms: float
    frames: int
    evaluations: int
    left_out: tuple[str, ...]
    seconds: float

    @property
    def fp16(self) -> tuple[str, ...]:
        """The free layers that were put in float16."""
        return tuple(row.name for row in self.layers if row.decided and row.precision == "fp16")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON (SQNR may be infinite)."""
        names = (
            "sqnr_db", "int8_sqnr_db", "fp16_sqnr_db", "metric", "metric_loss", "device", "int8_ms",
            "chosen_ms", "frames", "evaluations", "seconds",
        )  # fmt: skip
        return {
            "budget": str(self.budget),
            **{name: getattr(self, name) for name in names},
            "fp16": list(self.fp16),
            "left_out": list(self.left_out),
            "layers": [dict(vars(row)) for row in self.layers],
        }

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.layers)
        lines = [f"{'layer':<{width}}  precision  SQNR alone dB  int8 ms  fp16 ms"]
        for row in self.layers:
            measured = (
                f"{row.sqnr_db:13.2f}  {row.int8_ms:7.3f}  {row.fp16_ms:7.3f}" if row.decided else "  (given)"
            )
            lines.append(f"{row.name:<{width}}  {row.precision:<9}  {measured}")
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """One line: what was chosen, and what it reaches."""
        free = sum(row.decided for row in self.layers)
        loss = "" if self.metric_loss is None else f", metric loss {self.metric_loss:.5g}"
        return (
            f"{self.budget}: {len(self.fp16)} of {free} layers in float16, "
            f"SQNR {self.sqnr_db:.2f} dB (all int8 {self.int8_sqnr_db:.2f}){loss}, {self.chosen_ms:.3f} ms a "
            f"frame (all int8 {self.int8_ms:.3f}; {self.device})"
        )


def choose_precision(
    graph: GraphModule,
    frames: Iterable[Sequence[Any]],
    *,
    budget: Budget | str,
    device: str = "cpu",
    metric: Metric | None = None,
    precision: PrecisionSpec = None,
    times: Mapping[str, tuple[float, float]] | None = None,
    max_evaluations: int = 200,
    progress: bool | None = None,
) -> PrecisionChoice:
    """Keep the worst layers in float16 until `budget` holds, and put the precisions into the graph.

    Layers are taken by the error that they save per millisecond of the engine. Errors do not add up, so every
    choice is evaluated as a whole, in the arithmetic in which the engine will run it.

    Args:
        graph: a calibrated graph; unchanged after any error.
        frames: as for `quant.calibrate`; kept in memory. Eight to sixteen from different places serve.
        budget: "sqnr>=30" (dB at the outputs against float32) and "metric_loss<=0.3" take as little time as
            they can; "time<=1.1" (a frame may take a tenth longer than all int8) as little error.
        device: where the engine is timed: "cpu", "cuda" or "cuda:N".
        metric: evaluates the network, see `quant.sensitivity`; needed for a metric's budget only.
        precision: what is not free: as for `quant.calibrate`, on top of the default. Layers that come out
            other than int8 stay so.
        times: milliseconds (int8, fp16) of each free layer, in place of measuring them.
        max_evaluations: most choices to evaluate, at least 20; then the rest is decided by halving.
        progress: as for `quant.calibrate`.

    Raises CalibrationError for a budget that cannot be met (says what was reached), a text that is no budget,
    a metric's budget without a metric, a graph without ranges or free layers, no frames.
    """
    began = time.perf_counter()
    limit = parse_budget(budget)
    if limit.kind == "metric_loss" and metric is None:
        raise CalibrationError(f"The budget {limit} needs metric=, a callable that evaluates the network.")
    if not isinstance(max_evaluations, Integral) or max_evaluations < 20:
        raise CalibrationError(
            f"max_evaluations must be a whole number, at least 20, got {max_evaluations!r}."
        )
    base = resolve(graph, precision, default_precisions(graph))
    free = _free(graph, base)
    known = None if times is None else given_times(times, free)
    with progress_bar(progress, None, "Choosing precisions") as bar:
        evaluator = Evaluator(graph, frames, base, free, metric, bar.step)
        layer_times = known or measure_times(graph, evaluator.first, base, free, device)
        search = Search(evaluator, layer_times, limit, int(max_evaluations))
        fp16 = spend_time(search) if limit.kind == "time" else spare_time(search)
        int8_ms, chosen_ms = layer_times.total, layer_times.frame(fp16)
        if known is None:
            fp16, int8_ms, chosen_ms = _timed(graph, search, fp16, device)
        loss = None if metric is None else evaluator.metric_loss(fp16)
    chosen = evaluator.precisions(fp16)
    outputs = output_precisions(graph, chosen)
    write_precisions(graph, chosen, outputs)
    return PrecisionChoice(
        budget=limit,
        layers=_rows(graph, chosen, set(free), evaluator, layer_times),
        precisions=chosen,
        output_precisions=outputs,
        sqnr_db=decibels(search.noise(fp16)),
        int8_sqnr_db=decibels(search.noise(())),
        fp16_sqnr_db=search.all_fp16_db,
        metric=evaluator.base_metric,
        metric_loss=loss,
        device=layer_times.device,
        int8_ms=int8_ms,
        chosen_ms=chosen_ms,
        frames=evaluator.frames,
        evaluations=evaluator.evaluations,
        left_out=tuple(search.overflowing),
        seconds=time.perf_counter() - began,
    )


def _free(graph: GraphModule, base: Mapping[str, str]) -> list[str]:
    """Names of the layers that may be int8 or float16."""
    found = [layer for layer in quantizable(graph) if base[layer.name] == "int8"]
    for layer in found:
        if read_ranges(layer) is None:
            raise CalibrationError(
                f"{layer.name} has no ranges, which int8 needs. Calibrate the graph first (quant.calibrate, "
                "quant.load_cache), or give this layer's precision."
            )
    if not found:
        raise CalibrationError("No layer is free: the given precisions leave none in int8.")
    return [layer.name for layer in found]


def _timed(
    graph: GraphModule, search: Search, fp16: list[str], device: str
) -> tuple[list[str], float, float]:
    """The choice, and milliseconds of whole frames with all int8 and as chosen.

    Layers' times do not quite add up to a frame's. Where time is the budget, layers that were taken last are
    given back until the measured frame keeps to it.
    """
    while True:
        variants = {"int8": search.evaluator.precisions(()), "chosen": search.evaluator.precisions(fp16)}
        found = frame_milliseconds(graph, search.evaluator.first, variants, device)
        ratio = found["chosen"] / found["int8"]
        if not fp16:
            return fp16, found["int8"], found["int8"]
        if search.budget.kind != "time" or search.budget.holds(ratio):
            return fp16, found["int8"], found["chosen"]
        fp16 = fp16[:-1]


def _rows(
    graph: GraphModule, chosen: Mapping[str, str], free: set[str], evaluator: Evaluator, times: LayerTimes
) -> tuple[LayerChoice, ...]:
    rows = []
    for layer in quantizable(graph):
        name = layer.name
        if name in free:
            alone = decibels(evaluator.alone[name])
            ms = times.int8[name], times.fp16[name]
            rows.append(LayerChoice(name, layer.kind, chosen[name], True, alone, *ms))
        else:
            rows.append(LayerChoice(name, layer.kind, chosen[name], False))
    return tuple(rows)
