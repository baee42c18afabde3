# SPDX-License-Identifier: Apache-2.0
"""What a caller asks of an engine, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from scn_fx.errors import ArgumentError
from scn_fx.files.onnx_models import model_source
from scn_fx.runtime.backend import Options
from scn_fx.runtime.whole_numbers import grid_shape, whole_number

__all__ = ["checked_options", "gpu_number"]

MOST_THREADS = 1024
"""Of one engine; far more than a processor has."""

MOST_MEMORY = 2**62
"""Bytes that may be asked for as a limit."""


def checked_options(
    model: Any,
    *,
    precision: str | None = None,
    threads: int | None = None,
    spatial_shape: Sequence[int] | None = None,
    graph: bool = True,
    max_batch_size: int | None = None,
    max_voxels: int | None = None,
    memory_limit: int | None = None,
) -> Options:
    """The options of `scn_fx.Engine`, see there.

    Raises:
        ArgumentError: one is impossible, or `model` is neither a path nor bytes.
        OnnxError: the path leads to no regular file, or to one beyond protobuf's 2 GiB.
    """
    if precision is not None and not (isinstance(precision, str) and precision == "fp32"):
        raise ArgumentError(
            f"precision must be None (what the file says) or 'fp32', got {precision!r}. "
            "Other precisions are chosen before export, with quant.calibrate."
        )
    return Options(
        source=_source(model),
        precision=precision or "",
        spatial_shape=None if spatial_shape is None else grid_shape("spatial_shape", spatial_shape),
        threads=0 if threads is None else whole_number("threads", threads, MOST_THREADS),
        graph=graph,
        max_batch=0 if max_batch_size is None else whole_number("max_batch_size", max_batch_size),
        max_sites=0 if max_voxels is None else whole_number("max_voxels", max_voxels),
        memory_limit=0 if memory_limit is None else whole_number("memory_limit", memory_limit, MOST_MEMORY),
    )


def _source(model: Any) -> str | bytes:
    """The path or the bytes of a model's file."""
    if isinstance(model, bytes | bytearray | memoryview):
        return bytes(model)
    try:
        path = os.fsdecode(model)
    except TypeError as error:
        advice = {"ModelProto": "model.SerializeToString()", "BytesIO": "model.getvalue()"}
        kind = type(model).__name__
        raise ArgumentError(
            f"model must be the path of an ONNX file or its bytes, got {kind}. Pass "
            f"{advice.get(kind, 'a path')}."
        ) from error
    if "\0" in path:
        raise ArgumentError(f"model must be the path of an ONNX file, got {path!r}, which holds a zero byte.")
    return model_source(path)


def gpu_number(device: Any) -> int | None:
    """Which GPU a device means; None for the CPU."""
    name = str(device)
    found = re.fullmatch(r"cuda(?::(\d{1,3}))?", name)
    if found is None and name != "cpu":
        raise ArgumentError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {name!r}.")
    return None if found is None else int(found[1] or 0)
