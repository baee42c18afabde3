# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning by distillation: the calibrated graph learns to give what the float network gives."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule

from scn_fx.errors import CalibrationError, NonFiniteError, ScnError
from scn_fx.quant.decibels import decibels
from scn_fx.quant.few_frames import few_frames
from scn_fx.quant.interpreter import FloatInterpreter
from scn_fx.quant.progress import progress_bar
from scn_fx.quant.qat import TrainableLayer, finish_qat, prepare_qat, refresh_weight_ranges

__all__ = ["FinetuneReport", "finetune"]


@dataclass(frozen=True)
class FinetuneReport:
    """What `finetune` did.

    Attributes:
        losses: noise-to-signal ratio of each step's frame, before the step.
        sqnr_before, sqnr_after: signal to noise of the graph's outputs on all frames, in decibels.
        kept: whether the weights stayed as they were, because training made the outputs no better.
        frames: how many were used.
        seconds: wall time.
    """

    losses: tuple[float, ...]
    sqnr_before: float
    sqnr_after: float
    kept: bool
    frames: int
    seconds: float


def finetune(
    graph: GraphModule,
    reference: GraphModule,
    frames: Iterable[Sequence[Any]],
    *,
    steps: int = 200,
    lr: float = 1e-4,
    layers: Sequence[str] | str = "*",
    frames_limit: int = 64,
    outliers: str = "drop",
    progress: bool | None = None,
) -> FinetuneReport:
    """Train weights and biases of the int8 convolutions until the outputs are those of the float network.

    Each step takes one frame, in turn; the loss is the mean squared difference between the graph's outputs in
    its own arithmetic and the reference's in float32, relative to the mean square of the latter (needs no
    labels). Adam with a cosine schedule; `quant.qat` has the parts for a loop of one's own.

    Args:
        graph: a calibrated graph, best after `quant.round_weights`; trained in place, on its device. Stopped
            by Ctrl-C or an error, it keeps what it has learnt up to the last step that was sound, rounded
            and ready for export.
        reference: the float network: a copy of the graph from before its weights were changed.
        frames: as for `quant.calibrate`. All that are used stay in memory.
        steps: how many frames to train on, in turn.
        lr: learning rate as a share of a layer's largest weight: 1e-3 is an eighth of an integer a step.
        layers: shell-style patterns of the layers that train.
        frames_limit: most frames to use: of a sequence spread evenly, of another iterable the first.
        outliers: "drop" or "keep", as for `quant.calibrate`.
        progress: True for a progress bar, False for none, None for one on a terminal.

    Raises:
        CalibrationError: no int8 layers with ranges, no frames, a reference with other outputs, an impossible
            option.
        NonFiniteError: the loss is no longer finite; names the step, as every error of a step does.
        OverflowedError: a value does not fit in float16; names the layer.
    """
    began = time.perf_counter()
    if steps < 1 or not lr > 0:
        raise CalibrationError(f"steps and lr must be positive, got steps={steps} and lr={lr}.")
    tensors = few_frames(graph, frames, frames_limit, outliers)
    float_network = FloatInterpreter(reference, lambda node, value: None)
    with torch.no_grad():
        wanted = [_outputs(float_network.run(*frame)) for frame in tensors]
    before = _sqnr(graph, tensors, wanted)
    trained = prepare_qat(graph, layers=layers)
    optimizer = torch.optim.Adam(_groups(trained, lr), betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = sound = _values(trained)
    losses: list[float] = []
    try:
        with progress_bar(progress, steps, "Fine-tuning") as bar, torch.enable_grad():
            for number in _order(len(tensors), steps):
                optimizer.zero_grad(set_to_none=True)
                signal, noise = _errors(_outputs(graph(*tensors[number])), wanted[number])
                loss = noise / signal
                losses.append(float(loss.detach()))
                if not loss.isfinite():
                    raise NonFiniteError(f"The loss is {losses[-1]}.")
                sound = _values(trained)
                loss.backward()
                optimizer.step()
                schedule.step()
                refresh_weight_ranges(graph)
                bar.step()
        after = _sqnr(graph, tensors, wanted)
        kept = not after > before
        if kept:
            _put_back(trained, start)
    except BaseException as error:
        _put_back(trained, sound)
        if isinstance(error, ScnError) and losses:
            text = f"Step {len(losses) - 1} (counted from 0), lr {lr}: {error} If it diverges, lower lr."
            raise type(error)(text) from error
        raise
    finally:
        finish_qat(graph)
    seconds = time.perf_counter() - began
    return FinetuneReport(tuple(losses), before, before if kept else after, kept, len(tensors), seconds)


def _values(trained: Sequence[TrainableLayer]) -> list[torch.Tensor]:
    return [value.detach().clone() for each in trained for value in (each.weight, each.bias)]


def _put_back(trained: Sequence[TrainableLayer], values: Sequence[torch.Tensor]) -> None:
    parameters = [value for each in trained for value in (each.weight, each.bias)]
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def _groups(trained: Sequence[TrainableLayer], lr: float) -> list[dict[str, Any]]:
    """Parameters with learning rates in their own units: a layer's weight range, its largest product."""
    groups = []
    for each in trained:
        weight_range = max(each.layer.weight_dynamic_ranges or [1.0])
        groups.append({"params": [each.weight], "lr": lr * weight_range})
        product = weight_range * float(each.layer.input_dynamic_range or 1.0)
        groups.append({"params": [each.bias], "lr": lr * product})
    return groups


def _order(frames: int, steps: int) -> Iterator[int]:
    """Each frame once in a random order, then in another; the same in each run."""
    generator = torch.Generator().manual_seed(0)
    left: list[int] = []
    for _ in range(steps):
        left = left or torch.randperm(frames, generator=generator).tolist()
        yield left.pop()


def _outputs(result: Any) -> list[torch.Tensor]:
    """The float tensors of a result, nested or not."""
    if isinstance(result, torch.Tensor):
        return [result] if result.is_floating_point() else []
    if isinstance(result, dict):
        result = list(result.values())
    if not isinstance(result, list | tuple):
        return []
    return [tensor for part in result for tensor in _outputs(part)]


def _errors(got: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of squares of all outputs, and of their errors; each output weighs the same."""
    if not wanted or [g.shape for g in got] != [w.shape for w in wanted]:
        raise CalibrationError(
            f"The reference must have the graph's outputs, {[list(g.shape) for g in got]}, got "
            f"{[list(w.shape) for w in wanted]}. Pass a copy of the graph itself."
        )
    shares = []
    for g, w in zip(got, wanted, strict=True):
        power = w.float().square().sum()
        shares.append((g.float() - w.float()).square().sum() / power.clamp(min=1e-30))
    noise = torch.stack(shares).sum()
    return torch.full_like(noise, len(shares)), noise


def _sqnr(
    graph: GraphModule, frames: Sequence[Sequence[torch.Tensor]], wanted: Sequence[Sequence[torch.Tensor]]
) -> float:
    with torch.no_grad():
        sums = [_errors(_outputs(graph(*f)), w) for f, w in zip(frames, wanted, strict=True)]
    return decibels(float(sum(signal for signal, _ in sums)), float(sum(noise for _, noise in sums)))
