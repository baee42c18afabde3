# SPDX-License-Identifier: Apache-2.0
"""Other ranges from the histograms of a cache: another method needs no frames."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scn_fx.errors import CalibrationError
from scn_fx.quant.cache import save_cache
from scn_fx.quant.calibration import CalibrationResult, conclude
from scn_fx.quant.kept_state import packed_state, read_state
from scn_fx.quant.precision import PrecisionSpec, default_precisions, resolve
from scn_fx.quant.range_options import RangeOptions
from scn_fx.quant.session import Session

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["reselect"]


def reselect(
    graph: GraphModule,
    cache: str | Path,
    *,
    method: str = "mse",
    percentile: float = 99.99,
    consumers: str = "aware",
    weights: str | None = None,
    precision: PrecisionSpec = None,
    output: str | Path | None = None,
) -> CalibrationResult:
    """Take ranges by another method from the histograms that a calibration cache holds.

    The ranges are those that `quant.calibrate` with these options would find on the cache's frames; they and
    the precisions end up in the graph.

    Args:
        graph: the graph that the cache was made from, with the weights it had then.
        cache: a cache that `quant.calibrate` wrote, also one of a calibration that has not been finished.
        method, percentile, consumers, weights, precision: as for `quant.calibrate`.
        output: where to write a cache with these ranges and the same histograms; it may be `cache` itself.

    Raises CalibrationError for unknown options, and for a file that does not fit the graph, holds no
    histograms or is damaged; the graph is unchanged after any error.
    """
    began = time.perf_counter()
    options = RangeOptions(method, percentile, consumers, weights).check()
    path = Path(cache)
    state = read_state(graph, path)
    chosen = resolve(graph, precision, default_precisions(graph))
    session = Session.from_state(graph, state, path)
    if session.counted == 0:
        raise CalibrationError(f"{path} has counted no frames yet: there is nothing to take ranges from.")
    result = conclude(session, options, chosen)
    if output is not None:
        save_cache(graph, output, state=packed_state(session))
    return replace(result, seconds=time.perf_counter() - began)
