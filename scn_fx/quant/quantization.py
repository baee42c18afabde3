# SPDX-License-Identifier: Apache-2.0
"""The whole way to int8 in one call: equalise, calibrate, correct, round."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scn_fx.errors import CalibrationError
from scn_fx.peers import Peers
from scn_fx.quant import IMPROVEMENTS
from scn_fx.quant.bias_correction import BiasReport, correct_bias
from scn_fx.quant.cache import save_cache
from scn_fx.quant.calibration import CalibrationResult, calibrate
from scn_fx.quant.equalization import EqualizationReport, equalize
from scn_fx.quant.precision import write_precisions
from scn_fx.quant.ranges import write_ranges
from scn_fx.quant.rounding import RoundingReport, round_weights
from scn_fx.quant.scale_groups import scale_groups
from scn_fx.quant.working_copy import working_copy

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["QuantizationResult", "quantize"]


@dataclass(frozen=True)
class QuantizationResult:
    """What each step did; None for a step that was not asked for, or (equalisation) has nothing to do.

    Attributes:
        calibration: ranges and precisions.
        equalization: factors of channels.
        bias: changes of biases.
        rounding: changes of integers.
    """

    calibration: CalibrationResult
    equalization: EqualizationReport | None = None
    bias: BiasReport | None = None
    rounding: RoundingReport | None = None


def quantize(
    graph: GraphModule,
    frames: Iterable[Sequence[Any]],
    *,
    improve: Sequence[str] = ("equalize", "round"),
    frames_limit: int = 16,
    cache: str | Path | None = None,
    progress: bool | None = None,
    **options: Any,
) -> QuantizationResult:
    """Calibrate a graph, and change its weights so that int8 loses less.

    The float network stays the same under "equalize", which scales channels between layers. "bias" and
    "round" fit biases and integers to what the float network computes, so that a graph set to float16 or
    float32 afterwards is no longer the float network. What each of them brings on trained networks:
    docs/explanation/accuracy.md.

    Args:
        graph: a captured float graph, changed in place. After any error it is as it was.
        frames: as for `quant.calibrate`. A sequence serves best: improvements then use frames spread over
            its length, otherwise the first.
        improve: which of "equalize", "bias" and "round"; done in this order, whatever the order here.
        frames_limit: most frames for improvements, which keep them in memory.
        cache: where to write the calibration cache, with the changed weights.
        progress: True for progress bars, False for none, None for bars on a terminal.
        options: further arguments of `quant.calibrate`.

    Raises:
        CalibrationError: an unknown improvement; improvements under torch.distributed; and as the steps do.
    """
    unknown = [name for name in improve if name not in IMPROVEMENTS]
    if unknown or isinstance(improve, str):
        raise CalibrationError(f"improve must be a sequence of {', '.join(IMPROVEMENTS)}, got {improve!r}.")
    if improve and Peers.current("calibration", CalibrationError).size > 1:
        raise CalibrationError(
            "Improvements run in one process. Calibrate in all of them (improve=()), and call "
            "quant.correct_bias or quant.round_weights in one."
        )
    few, every = _split(frames, frames_limit) if improve else ((), frames)
    shared: dict[str, Any] = {"progress": progress, "outliers": options.get("outliers", "drop")}
    scaled = bias = rounded = None
    with working_copy(graph) as made:
        if "equalize" in improve and scale_groups(made):
            scaled = equalize(made, few, frames_limit=frames_limit, **shared)
        reference = copy.deepcopy(made)
        result = calibrate(made, every, cache=cache, progress=progress, **options)
        if "bias" in improve:
            bias = correct_bias(made, few, reference=reference, frames_limit=frames_limit, **shared)
        if "round" in improve:
            rounded = round_weights(made, few, reference=reference, frames_limit=frames_limit, **shared)
        if cache is not None and (bias or rounded):
            save_cache(made, cache)  # without histograms: they are those of other weights
    write_ranges(graph, result.ranges, result.method, result.frames)
    write_precisions(graph, result.precisions, result.output_precisions)
    return QuantizationResult(result, scaled, bias, rounded)


def _split(frames: Any, limit: int) -> tuple[Any, Any]:
    """Frames for the improvements, and all frames; an iterator is not read twice."""
    if isinstance(frames, Sized) and hasattr(frames, "__getitem__"):
        return frames, frames
    if not isinstance(frames, Iterable):
        return frames, frames  # which the first step refuses
    rest = iter(frames)
    few = list(islice(rest, limit))
    return few, chain(few, rest)
