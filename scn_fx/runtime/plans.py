# SPDX-License-Identifier: Apache-2.0
"""`scn_fx.save_plan`: ONNX files made ready for one kind of processor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from scn_fx import _core
from scn_fx.errors import ScnError
from scn_fx.files.atomic import check_writable, write_file
from scn_fx.files.onnx_models import ONNX_FILE
from scn_fx.files.reading import read_file
from scn_fx.runtime.cuda import check_device
from scn_fx.runtime.engine_options import checked_options, gpu_number

__all__ = ["save_plan"]


def save_plan(
    model: str | os.PathLike[str] | bytes,
    path: str | os.PathLike[str],
    device: Any = "cpu",
    *,
    precision: str | None = None,
    spatial_shape: Sequence[int] | None = None,
    max_batch_size: int | None = None,
    max_voxels: int | None = None,
    memory_limit: int | None = None,
) -> None:
    """Makes a plan of an ONNX file and writes it to `path`: what `Engine` takes in its place.

    A plan loads in a fraction of the time and without ONNX: its weights are rounded, quantised and laid out
    already. It runs on the kind of processor that it was made on (`device`: any x86-64 processor, or GPUs of
    one compute capability), with the plan format of this version, and with the options given here; everything
    else refuses it with a reason. A checksum finds damage. It records the SHA-256 of the ONNX file; the bits
    of its results are those of that file. The engine is made on the way, so that what can be refused is
    refused here.

    Args:
        model: path of an ONNX file in the libspconv dialect, or its bytes.
        path: the plan, which appears complete or not at all.
        device, precision, spatial_shape, max_batch_size, max_voxels, memory_limit: as for `Engine`. The last
            is that of making the plan alone.

    Raises:
        OnnxError, MemoryLimitError, ArgumentError: as `Engine`; `model` is a plan already.
        WriteError: the plan cannot be written.
    """
    number = gpu_number(device)
    options = checked_options(
        model,
        precision=precision,
        spatial_shape=spatial_shape,
        max_batch_size=max_batch_size,
        max_voxels=max_voxels,
        memory_limit=memory_limit,
    )
    if number is not None:
        check_device(number)
    check_writable(path)
    source = options.source
    try:
        made = _core.plan_bytes(
            source if isinstance(source, bytes) else read_file(source, ONNX_FILE),
            -1 if number is None else number,
            options.precision,
            options.spatial_shape,
            options.max_batch,
            options.max_sites,
            options.memory_limit,
        )
    except ScnError as error:
        if isinstance(source, bytes):
            raise
        raise type(error)(f"{source}: {error}") from error
    write_file(path, made)
