# SPDX-License-Identifier: Apache-2.0
"""What each layer alone costs in int8: the error at the graph's outputs while everything else is float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from numbers import Real
from typing import Any

import torch
from torch.fx import GraphModule

from scn_fx.errors import CalibrationError, ScnError
from scn_fx.quant.frames import InputSpec, check_frame, input_spec, round_features
from scn_fx.quant.mixed import Form, Forms, MixedRunner, Noise, graph_device
from scn_fx.quant.precision import fits_int8, int8_terms
from scn_fx.quant.progress import progress_bar
from scn_fx.quant.ranges import quantizable, read_ranges

__all__ = ["LayerSensitivity", "Metric", "SensitivityReport", "prepared", "sensitivity"]

Metric = Callable[[Callable[..., Any]], float]
"""Takes a function that runs the network as the graph does (`run(features, indices)`), returns a number of
which more is better (mAP, for example)."""

_FORMS: dict[str, Form] = {"int8": ("int8", "int8"), "fp16": ("fp16", "fp16")}
"""A layer alone: in int8 its consumers take the unrounded result, as float32 layers and int8 ones do."""


@dataclass(frozen=True)
class LayerSensitivity:
    """What one layer costs.

    Attributes:
        name: the layer's module path.
        kind: "convolution" or "add".
        sqnr_db: SQNR in dB at the outputs (the worst of several), the layer alone in the tried precision.
        noise: the same as error over signal (energies): 10 ** (-sqnr_db / 10).
        metric_loss: the float32 network's metric less that with this layer; None without a metric.
    """

    name: str
    kind: str
    sqnr_db: float
    noise: float
    metric_loss: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "kind": self.kind,
            "sqnr_db": self.sqnr_db,
            "noise": self.noise,
            "metric_loss": self.metric_loss,
        }


@dataclass(frozen=True)
class SensitivityReport:
    """What `sensitivity` found.

    Attributes:
        precision: what was tried on each layer, "int8" or "fp16".
        frames: number of frames.
        layers: the layers, most sensitive first (by metric loss if there is a metric, else by SQNR).
        together_sqnr_db: SQNR in dB with all of these layers in that precision at once. Errors do not add up:
            it is no sum of the single ones.
        together_metric_loss: the metric's loss of that; None without a metric.
        metric: the metric of the float32 network; None without one.
        left_out: layers that cannot be tried, and why.
        seconds: wall time.
    """

    precision: str
    frames: int
    layers: tuple[LayerSensitivity, ...]
    together_sqnr_db: float
    together_metric_loss: float | None
    metric: float | None
    left_out: dict[str, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON (SQNR may be infinite)."""
        return {
            "precision": self.precision,
            "frames": self.frames,
            "metric": self.metric,
            "layers": [layer.to_dict() for layer in self.layers],
            "together": {"sqnr_db": self.together_sqnr_db, "metric_loss": self.together_metric_loss},
            "left_out": dict(self.left_out),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.layers)
        measured = self.metric is not None
        lines = [f"{'layer':<{width}}  SQNR dB" + ("  metric loss" if measured else "")]
        rows = [(row.name, row.sqnr_db, row.metric_loss) for row in self.layers]
        for name, db, loss in (*rows, ("together", self.together_sqnr_db, self.together_metric_loss)):
            lines.append(f"{name:<{width}}  {db:7.2f}" + (f"  {loss:11.5g}" if loss is not None else ""))
        return "\n".join(lines)


def sensitivity(
    graph: GraphModule,
    frames: Iterable[Sequence[Any]],
    *,
    metric: Metric | None = None,
    layers: Iterable[str] | str | None = None,
    precision: str = "int8",
    progress: bool | None = None,
) -> SensitivityReport:
    """Run each layer alone in int8, all others in float32, and rank the layers by the error at the outputs.

    The graph and its own precisions stay as they are. A frame runs once in float32; for each layer only what
    depends on it runs again.

    Args:
        graph: a calibrated graph, on the CPU or a GPU.
        frames: the tensors that the graph takes, for each frame, as `quant.calibrate` takes them; others than
            those of the calibration tell more. Read once; a dozen is usual.
        metric: a callable that evaluates the network, see `Metric`; it is called once for each layer and
            twice more, with frames of its own.
        layers: shell-style patterns of layer names; None takes every convolution and Add.
        precision: "int8", or "fp16" to see what float16 costs.
        progress: as for `quant.calibrate`.

    Raises CalibrationError for a graph without ranges, no frames or frames that do not fit, patterns that
    match nothing, a metric that gives no finite number; NonFiniteError, OverflowedError and others of the
    layers, naming frame and layer.
    """
    began = time.perf_counter()
    if precision not in _FORMS:
        raise CalibrationError(f"Unknown precision {precision!r}; expected one of {', '.join(_FORMS)}.")
    chosen, left_out = _tried(graph, layers, precision)
    runner = MixedRunner(graph)
    form = _FORMS[precision]
    alone: dict[str, Forms] = {name: {name: form} for name in chosen}
    together: Forms = dict.fromkeys(chosen, form)
    noises = {name: Noise() for name in chosen}
    all_noise, count = Noise(), 0
    total = len(frames) * (len(chosen) + 2) if isinstance(frames, Sized) else None
    with progress_bar(progress, total, "Measuring layers") as bar:
        for number, tensors in prepared(graph, frames):
            with named_frame(number):
                reference = runner.values(tensors, {})
                bar.step()
                for name, forms in alone.items():
                    noises[name].add(reference.result, runner.values(tensors, forms, reference).result)
                    bar.step()
                all_noise.add(reference.result, runner.values(tensors, together, reference).result)
                bar.step()
            count += 1
    if count == 0:
        raise CalibrationError("There are no frames. Give at least one; a dozen from different places serve.")
    of_float = losses = together_loss = None
    if metric is not None:
        of_float = measured(metric, runner, {})
        losses = {name: of_float - measured(metric, runner, forms) for name, forms in alone.items()}
        together_loss = of_float - measured(metric, runner, together)
    rows = [
        LayerSensitivity(
            name, kind, noises[name].sqnr_db, noises[name].ratio, losses[name] if losses else None
        )
        for name, kind in chosen.items()
    ]
    rows.sort(key=lambda row: (-(row.metric_loss or 0.0), -row.noise))
    return SensitivityReport(
        precision,
        count,
        tuple(rows),
        all_noise.sqnr_db,
        together_loss,
        of_float,
        left_out,
        time.perf_counter() - began,
    )


def prepared(graph: GraphModule, frames: Iterable[Sequence[Any]]) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """Number and checked tensors of each frame, features rounded to float16, on the graph's device."""
    spec, device = input_spec(graph), graph_device(graph)
    for number, frame in enumerate(frames):
        yield number, [tensor.to(device) for tensor in _rounded(frame, spec, number)]


def _rounded(frame: Sequence[Any], spec: InputSpec, number: int) -> list[torch.Tensor]:
    return round_features(check_frame(frame, spec, number), spec, number)


@contextmanager
def named_frame(number: int) -> Iterator[None]:
    """Errors inside say which frame it was."""
    try:
        yield
    except ScnError as error:
        raise type(error)(f"Frame {number} (counted from 0): {error}") from error


def measured(metric: Metric, runner: MixedRunner, forms: Forms) -> float:
    """The metric of the graph in these forms; CalibrationError if it gives no finite number."""
    graph = runner.module
    assert isinstance(graph, GraphModule)
    spec, device = input_spec(graph), graph_device(graph)

    def run(*frame: Any) -> Any:
        tensors = [tensor.to(device) for tensor in _rounded(frame, spec, 0)]
        return runner.values(tensors, forms).result

    value = metric(run)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value):
        raise CalibrationError(
            f"The metric must return a finite number, of which more is better, got {value!r}. It is called "
            "with a function that runs the network: metric(run), run(features, indices)."
        )
    return float(value)


def _tried(
    graph: GraphModule, layers: Iterable[str] | str | None, precision: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Layers to try (name -> kind), and those that cannot be (name -> reason)."""
    found = quantizable(graph)
    patterns = [layers] if isinstance(layers, str) else ["*"] if layers is None else list(layers)
    names = [layer.name for layer in found]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise CalibrationError(
                f"The pattern {pattern!r} matches none of the {len(names)} layers: {', '.join(names)}."
            )
    chosen: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for layer in found:
        if not any(fnmatchcase(layer.name, pattern) for pattern in patterns):
            continue
        if precision == "int8" and not fits_int8(layer):
            left_out[layer.name] = f"{int8_terms(layer)} products per value can overflow int32"
        elif precision == "int8" and read_ranges(layer) is None:
            raise CalibrationError(
                f"{layer.name} has no ranges, which int8 needs. Calibrate the graph first (quant.calibrate, "
                "quant.load_cache)."
            )
        else:
            chosen[layer.name] = layer.kind
    if not chosen:
        raise CalibrationError(
            f"There is no layer to try in {precision}: "
            f"{'; '.join(f'{name}: {why}' for name, why in left_out.items()) or 'the graph has none'}."
        )
    return chosen, left_out
