# SPDX-License-Identifier: Apache-2.0
"""Measure the ranges of a captured graph on frames, and write them and the precisions into the graph."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule

from scn_fx.errors import CalibrationError, CalibrationWarning, ScnError
from scn_fx.files.atomic import check_writable
from scn_fx.graph import fingerprint
from scn_fx.peers import Peers
from scn_fx.quant import OUTLIERS
from scn_fx.quant.cache import save_cache
from scn_fx.quant.kept_state import Keeper, packed_state
from scn_fx.quant.precision import (
    PrecisionSpec,
    default_precisions,
    output_precisions,
    resolve,
    write_precisions,
)
from scn_fx.quant.range_options import RangeOptions
from scn_fx.quant.ranges import LayerRanges, quantizable, rounded_weight, weight_ranges, write_ranges
from scn_fx.quant.recorder import Recorder
from scn_fx.quant.selection import input_ranges, value_keys
from scn_fx.quant.session import Session
from scn_fx.quant.statistics import Statistics
from scn_fx.quant.weight_levels import LevelErrors, ranges_at

if TYPE_CHECKING:
    from scn_fx.quant.auto_precision import PrecisionChoice

__all__ = ["CalibrationResult", "calibrate", "ranges_by", "ranges_of_weights"]


@dataclass(frozen=True)
class CalibrationResult:
    """What a calibration found; the graph itself holds the same ranges and precisions.

    Attributes:
        method: one of METHODS.
        frames: number of frames that the ranges come from (without those that were left out).
        ranges: ranges of each convolution and Add, by layer name.
        largest: largest magnitude seen at each layer's inputs, by layer name, in operand order; a range below
            it clips.
        precisions: precision of each layer, by name.
        output_precisions: output precision of each layer, by name.
        seconds: wall time.
        warnings: what `calibrate` has warned of, as texts.
        choice: how the precisions were chosen, if a command did so for a budget.
    """

    method: str
    frames: int
    ranges: dict[str, LayerRanges]
    largest: dict[str, tuple[float, ...]]
    precisions: dict[str, str]
    output_precisions: dict[str, str]
    seconds: float
    warnings: tuple[str, ...] = ()
    choice: PrecisionChoice | None = None


def calibrate(
    graph: GraphModule,
    frames: Iterable[Sequence[Any]],
    *,
    method: str = "mse",
    percentile: float = 99.99,
    num_bins: int = 2048,
    precision: PrecisionSpec = None,
    outliers: str = "drop",
    consumers: str = "aware",
    weights: str | None = None,
    cache: str | Path | None = None,
    resume: bool = False,
    shard: bool = False,
    progress: bool | None = None,
) -> CalibrationResult:
    """Find the range of every value that feeds a convolution or an Add; write ranges and precisions.

    The graph runs in float32 on each frame (its features rounded to float16 first, as the engine does). A
    value has one range, whoever reads it; only operands of Adds before a ReLU may have their own. A weight
    has a range per output channel, never below its largest magnitude: weights are not clipped.

    Args:
        graph: a captured graph; ranges it already has are replaced.
        frames: the tensors that the graph takes, in order, for each frame: features float [N, C], indices
            int32 [N, 4] (of a 2D network [N, 3]). Any iterable, read once; a few hundred key frames from
            different places serve better than consecutive ones.
        method: "max" (largest magnitude), "percentile" (of the non-zero magnitudes), "mse" (least squared
            error of the quantised histogram) or "entropy" (least Kullback-Leibler divergence).
        percentile: for method "percentile", in percent: above 1, at most 100.
        num_bins: least histogram bins below a value's largest magnitude, at least 256; up to twice as many
            are used.
        precision: overrides on the default precisions by layer-name pattern, or one word; see
            `quant.set_precision`.
        outliers: what becomes of voxels and frames with feature values that nothing else comes near (see
            `quant.outliers`): "drop" leaves them out, "keep" uses them. A warning names them either way.
        consumers: "aware" fits the ranges of an Add before a ReLU to what the ReLU leaves of its operands,
            both together (see `quant.selection`); "ignore" gives every value one range for all readers.
        weights: "output" gives each output channel the range whose rounding costs least at the layer's output
            on the frames (see `quant.weight_levels`), "max" its largest magnitude. None: "max" for method
            "max", otherwise "output".
        cache: where to write the calibration cache (JSON) as well. While frames run, what they have shown is
            kept beside it (see `quant.kept_state`): an error, Ctrl-C or a crash loses little or nothing.
        resume: go on from what is kept beside the cache, or from the cache itself: frames that were counted
            are not run again. They must be the same, in the same order; more may follow. Without either the
            calibration starts from the beginning.
        shard: under torch.distributed, all processes are given the same frames, and each takes every n-th.
            Otherwise each is given its own.
        progress: True for a progress bar, False for none, None for one on a terminal; it needs rich.

    Under an initialised torch.distributed process group all processes must call this with graphs and options
    that are the same. Every one of them ends with the ranges of one process over all frames; rank 0 writes
    the cache.

    Warns (CalibrationWarning) of outliers, of one frame alone or frames that are alike, and of layers whose
    range one frame alone sets.

    Raises:
        CalibrationError: no frames, a frame that does not fit the graph, a layer whose input is zero in all
            frames, unknown method or precision, another process that has failed, a state that does not fit.
            The graph is unchanged after any error.
        NonFiniteError: NaN or infinity in the features or behind any layer; names frame and layer.
        WriteError: the cache cannot be written, asked before the first frame.
    """
    began = time.perf_counter()
    _check_options(graph, frames, num_bins, outliers, cache, resume)
    options = RangeOptions(method, percentile, consumers, weights).check()
    chosen = resolve(graph, precision, default_precisions(graph))
    ranges_of_weights(graph)  # what cannot have ranges is refused before frames run
    peers = Peers.current("calibration", CalibrationError)
    _check_peers(
        peers, (fingerprint(graph), num_bins, outliers, consumers, weights, method, percentile, chosen, shard)
    )
    session = Session(graph, Recorder(graph, method, num_bins), outliers, peers, shard)
    keeper = None if cache is None else Keeper(Path(cache), peers)
    with _keeping(session, keeper):
        if keeper is not None and resume:
            keeper.resume(session)
        session.run(frames, progress, keeper)
        if keeper is not None and peers.size > 1:
            keeper.save(session)  # another process may still fail
        findings = session.gather()
    with _keeping(session, keeper if peers.size == 1 else None):
        result = conclude(session, options, chosen)
        if keeper is not None:
            if peers.rank == 0:
                save_cache(graph, keeper.cache, state=packed_state(session))
            peers.exchange(None)  # nobody forgets a state before the cache is there
            keeper.discard()
    for finding in findings if peers.rank == 0 else ():
        warnings.warn(finding, CalibrationWarning, stacklevel=2)
    return replace(result, seconds=time.perf_counter() - began, warnings=tuple(findings))


def conclude(session: Session, options: RangeOptions, chosen: dict[str, str]) -> CalibrationResult:
    """Take ranges from what a session has counted; they and the precisions `chosen` go into the graph."""
    graph, statistics = session.graph, session.recorder.statistics
    ranges = ranges_by(graph, statistics, options)
    keys = value_keys(graph)
    largest = {
        layer.name: tuple(statistics.values[keys[node]].magnitude for node in layer.inputs)
        for layer in quantizable(graph)
    }
    outputs = output_precisions(graph, chosen)
    write_ranges(graph, ranges, options.method, session.counted)
    write_precisions(graph, chosen, outputs)
    return CalibrationResult(options.method, session.counted, ranges, largest, chosen, outputs, 0.0)


def ranges_by(graph: GraphModule, statistics: Statistics, options: RangeOptions) -> dict[str, LayerRanges]:
    """The ranges of each layer, by name, from statistics of the graph."""
    inputs = input_ranges(graph, statistics, options)
    of_weights = ranges_of_weights(graph, statistics.weights if options.weights_by_output else None)
    return {name: LayerRanges(found, of_weights.get(name)) for name, found in inputs.items()}


def ranges_of_weights(
    graph: GraphModule, errors: Mapping[str, LevelErrors] | None = None
) -> dict[str, tuple[float, ...]]:
    """The weight ranges of each convolution, by name: of each output channel the largest float16 magnitude.

    With `errors` by layer name, the range of the level that costs least.
    """
    found = {}
    for layer in quantizable(graph):
        if layer.spec.weighted:
            amax = rounded_weight(layer).abs().amax(dim=(1, 2, 3, 4))
            if errors is not None:
                amax = ranges_at(amax, torch.from_numpy(errors[layer.name].best()).to(amax.device))
            found[layer.name] = weight_ranges(layer, amax)
    return found


@contextmanager
def _keeping(session: Session, keeper: Keeper | None) -> Iterator[None]:
    """On any error, keep what has been counted, say so, and tell the other processes."""
    try:
        yield
    except ScnError as error:
        kept = "" if keeper is None else keeper.after_failure(session)
        session.peers.fail(error)
        if not kept:
            raise
        raise type(error)(f"{error}{kept}") from error
    except BaseException as error:
        if keeper is not None:
            keeper.after_failure(session)
        if isinstance(error, Exception):
            session.peers.fail(error)
        raise


def _check_peers(peers: Peers, job: tuple[Any, ...]) -> None:
    names = (
        "graph", "num_bins", "outliers", "consumers", "weights", "method", "percentile", "precision", "shard"
    )  # fmt: skip
    for rank, other in enumerate(peers.exchange(job)):
        differs = [name for name, mine, theirs in zip(names, job, other, strict=True) if mine != theirs]
        if differs:
            raise CalibrationError(
                f"Rank {peers.rank} and rank {rank} calibrate different things: {', '.join(differs)} differ. "
                "All processes need the same model, weights and options."
            )


def _check_options(
    graph: GraphModule,
    frames: object,
    num_bins: int,
    outliers: str,
    cache: str | Path | None,
    resume: bool,
) -> None:
    if outliers not in OUTLIERS:
        raise CalibrationError(f"Unknown outliers={outliers!r}; expected one of {', '.join(OUTLIERS)}.")
    if not isinstance(num_bins, Integral) or num_bins < 256:
        raise CalibrationError(
            "num_bins must be a whole number, at least 256 (the searches start at bin 128), got "
            f"{num_bins!r}."
        )
    if resume and cache is None:
        raise CalibrationError("resume=True goes on from a cache: name it with cache=.")
    if cache is not None:
        check_writable(Path(cache))
    if not isinstance(frames, Iterable) and not hasattr(frames, "__getitem__"):  # as a data set has
        raise CalibrationError(
            "frames must be an iterable of (features, indices), such as a list or a generator, got "
            f"{type(frames).__name__}."
        )
    if not quantizable(graph):
        raise CalibrationError("The graph has no convolution and no Add: there is nothing to calibrate.")
