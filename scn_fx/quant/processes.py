# SPDX-License-Identifier: Apache-2.0
"""Joins the processes that torchrun has started, for the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from scn_fx.errors import CalibrationError

__all__ = ["launched_rank", "process_group"]


def launched_rank() -> int:
    """This process's rank as torchrun says it; 0 for a process on its own."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Within the block torchrun's processes are a default process group; yields this process's device.

    `device` is "cpu" (gloo joins them) or "cuda" (nccl; each process takes the GPU of its local rank). A
    process on its own, or one whose group exists already, is left as it is. Raises CalibrationError if there
    is no such GPU, or the others cannot be reached.
    """
    import torch

    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise CalibrationError(
                f"The device cuda:{local} was asked for, but torch sees {torch.cuda.device_count()} GPUs. "
                "Use the CPU, start fewer processes, or install a torch with CUDA."
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    group = torch.distributed
    if "TORCHELASTIC_RUN_ID" not in os.environ or not group.is_available() or group.is_initialized():
        yield device
        return
    try:
        group.init_process_group("gloo" if device == "cpu" else "nccl")
    except (RuntimeError, ValueError) as error:
        raise CalibrationError(f"The processes of torchrun cannot be joined: {error}") from error
    try:
        yield device
    finally:
        group.destroy_process_group()
