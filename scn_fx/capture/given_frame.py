# SPDX-License-Identifier: Apache-2.0
"""Grid and batch size that capture was given, put into the sparse tensor that the forward makes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch

from scn_fx.capture.module_values import entry
from scn_fx.capture.tracing import Tracing, same_tensor
from scn_fx.errors import CaptureError

__all__ = ["given_batch_size", "given_shape", "made_tensor"]


def given_batch_size(value: Any) -> int | None:
    """The option `batch_size` of capture, checked."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise CaptureError(f"batch_size must be a whole number >= 1, got {value!r}.")
    return int(value)


def given_shape(value: Sequence[int] | None) -> tuple[int, ...] | None:
    """The option `spatial_shape` of capture, checked."""
    if value is None:
        return None
    try:
        shape = tuple(value)
    except TypeError:
        shape = ()
    if len(shape) not in (2, 3) or any(
        isinstance(size, bool) or not isinstance(size, Integral) or size < 1 for size in shape
    ):
        raise CaptureError(
            "spatial_shape must be the sizes of the grid in the order of the index columns, such as "
            f"(41, 1440, 1440), got {value!r}."
        )
    return tuple(int(size) for size in shape)


def made_tensor(
    tracing: Tracing, features: Any, indices: Any, spatial_shape: Any, batch_size: Any
) -> tuple[Any, Any, Any]:
    """Indices, grid and batch size of a sparse tensor that the forward makes on sites of the frame.

    The given ones take the place of the forward's. The indices may become an input of the graph, if the
    forward computes them. A tensor on sites that a layer has made stays what it is.
    """
    given = tracing.batch_size is not None or tracing.spatial_shape is not None
    if not given or not isinstance(indices, torch.Tensor) or tracing.made_sites(indices):
        return indices, spatial_shape, batch_size
    if tracing.spatial_shape is not None and len(tracing.spatial_shape) == indices.shape[1] - 1:
        spatial_shape = list(tracing.spatial_shape)
    if tracing.batch_size is not None:
        batch_size = tracing.batch_size
    # Features are replaced by making a tensor anew, on sites that have come this way already.
    for before, known in tracing.entries:
        if same_tensor(indices, known) or same_tensor(indices, before):
            return known, spatial_shape, batch_size
    made = entry(indices, features, "indices", "the forward")
    tracing.entries.append((indices, made))
    return made, spatial_shape, batch_size
