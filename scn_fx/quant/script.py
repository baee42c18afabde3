# SPDX-License-Identifier: Apache-2.0
"""The calibration job behind `python -m quant` and `scn-fx calibrate`: from names to a cache file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scn_fx.errors import CalibrationError, MissingPackageError
from scn_fx.files.atomic import check_writable
from scn_fx.lidar import parse_grid
from scn_fx.quant.processes import launched_rank

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from scn_fx.quant.budget import Budget
    from scn_fx.quant.calibration import CalibrationResult

__all__ = ["CalibrationJob", "parse_precision", "report", "run_job"]


@dataclass(frozen=True)
class CalibrationJob:
    """Everything one calibration needs.

    Attributes:
        model: a name of the zoo, or "package.module:callable" (see `quant.models.load_graph`).
        frames: files, or "package.module:callable" (see `quant.frame_source.find_frames`).
        output: the calibration cache to write.
        budget: choose precisions for it, on some of the frames; see `quant.choose_precision`.
        checkpoint: weights to load into the model.
        checkpoint_prefix, checkpoint_layout: see `quant.weights.load_weights`.
        outputs: which outputs of the model to take, as texts; see `quant.models.load_graph`.
        native: whether its graph is for the dialect scn_fx; see `quant.models.load_graph`.
        grid: the voxel grid of points and model, as `scn_fx.lidar.parse_grid` takes it; None takes the one
            that the model records (a zoo model: CenterPoint's).
        point_format: format of raw point files; None guesses.
        limit: most frames to use, spread evenly over the files; None for all.
        device: where the graph runs, and for a budget the engine is timed: "cpu" or "cuda".
        weights: how weights get their ranges; see `quant.calibrate`.
        improve: how weights and biases are fitted; see `quant.quantize`.
        method, percentile, num_bins, precision, outliers, consumers, resume: see `quant.calibrate`.
    """

    model: str
    frames: Path
    output: Path
    checkpoint: Path | None = None
    checkpoint_prefix: str | None = None
    checkpoint_layout: str | None = None
    grid: str | None = None
    point_format: str | None = None
    outputs: tuple[str, ...] = ()
    native: bool = False
    limit: int | None = None
    budget: Budget | None = None
    weights: str | None = None
    improve: tuple[str, ...] = ()
    method: str = "mse"
    percentile: float = 99.99
    num_bins: int = 2048
    outliers: str = "drop"
    consumers: str = "aware"
    resume: bool = False
    device: str = "cpu"
    precision: Mapping[str, str] | str | None = field(default=None)


def parse_precision(texts: list[str] | tuple[str, ...]) -> Mapping[str, str] | str | None:
    """Precision options of a command line: "PATTERN=PRECISION" texts in order, or one word for all layers.

    Raises CalibrationError for a text that is neither.
    """
    if not texts:
        return None
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    patterns: dict[str, str] = {}
    for text in texts:
        pattern, equals, precision = text.partition("=")
        if not equals or not pattern or not precision:
            raise CalibrationError(
                "Expected PATTERN=PRECISION such as 'conv1.*=fp16' (or one word alone for all layers), got "
                f"{text!r}."
            )
        patterns.pop(pattern, None)
        patterns[pattern] = precision
    return patterns


def run_job(job: CalibrationJob, *, progress: bool | None = None) -> tuple[GraphModule, CalibrationResult]:
    """Load the model, capture it, calibrate it on the frames and write the cache.

    Processes that torchrun has started share the frames. Returns the calibrated graph and the result. Raises
    the errors of the stages (all `scn_fx.errors.ScnError`).
    """
    from scn_fx.quant.frame_source import find_frames
    from scn_fx.quant.status import working

    # Names are checked before anything slow starts.
    check_writable(job.output)
    grid = None if job.grid is None else parse_grid(job.grid)
    frames = find_frames(job.frames, point_format=job.point_format, limit=job.limit)
    with working("loading the model", progress is True and launched_rank() == 0):
        try:
            from scn_fx.input_grid import network_grid
            from scn_fx.quant.budget_calibration import chosen_for_budget
            from scn_fx.quant.models import load_graph
            from scn_fx.quant.processes import process_group
            from scn_fx.quant.quantization import quantize
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise MissingPackageError.of("torch", "quant", "Calibration") from error
        graph = load_graph(
            job.model,
            checkpoint=job.checkpoint,
            checkpoint_prefix=job.checkpoint_prefix,
            checkpoint_layout=job.checkpoint_layout,
            grid=grid,
            outputs=job.outputs,
            native=job.native,
        )
    with process_group(job.device) as device:
        result = quantize(
            graph.to(device),
            frames.for_network(network_grid(graph), grid),
            improve=job.improve,
            method=job.method,
            percentile=job.percentile,
            num_bins=job.num_bins,
            precision=job.precision,
            outliers=job.outliers,
            consumers=job.consumers,
            weights=job.weights,
            resume=job.resume,
            shard=True,
            cache=job.output,
            progress=progress,
        ).calibration
    if job.budget is not None:
        result = chosen_for_budget(
            graph,
            result,
            frames.for_network(network_grid(graph), grid),
            job.budget,
            precision=job.precision,
            device=job.device,
            cache=job.output,
            progress=progress,
        )
    return graph, result


def report(job: CalibrationJob, result: CalibrationResult) -> dict[str, Any]:
    """A calibration's outcome as plain data, for `--json` and tables."""
    return {
        "model": job.model,
        "method": result.method,
        "frames": result.frames,
        "seconds": round(result.seconds, 3),
        "cache": str(job.output),
        "warnings": list(result.warnings),
        "choice": None if result.choice is None else result.choice.to_dict(),
        "layers": [
            {
                "name": name,
                "precision": result.precisions[name],
                "output_precision": result.output_precisions[name],
                "ranges": list(ranges.inputs),
                "largest": list(result.largest[name]),
            }
            for name, ranges in result.ranges.items()
        ],
    }
