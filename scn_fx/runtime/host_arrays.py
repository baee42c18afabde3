# SPDX-License-Identifier: Apache-2.0
"""Arrays in host memory: numpy, torch on the CPU, and whatever else speaks DLPack."""

from __future__ import annotations

from typing import Any

import numpy as np

from scn_fx.errors import SiteError

__all__ = ["as_numpy", "is_torch", "like", "like_all"]


def is_torch(array: Any) -> bool:
    """Whether this is a torch tensor; does not import torch."""
    return type(array).__module__.partition(".")[0] == "torch"


def as_numpy(array: Any, what: str) -> np.ndarray:
    """A C-contiguous numpy view (or copy) of a numpy, torch or DLPack array in host memory.

    Raises:
        SiteError: it is none, or lies elsewhere.
    """
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array)
    if is_torch(array):
        if array.device.type != "cpu":
            raise SiteError(
                f"{what} lies on {array.device}, but this engine runs on the CPU. Pass {what}.cpu() instead, "
                f"or make the engine with device={str(array.device)!r}."
            )
        return np.ascontiguousarray(array.detach().numpy())
    if hasattr(array, "__dlpack__"):
        return np.ascontiguousarray(np.from_dlpack(array))
    raise SiteError(f"{what} must be a numpy, torch or DLPack array, got {type(array).__name__}.")


def like(array: np.ndarray, example: Any) -> Any:
    """`array` as a torch tensor if `example` is one."""
    if not is_torch(example):
        return array
    import torch

    return torch.from_numpy(array)


def like_all(outputs: list[Any], example: Any) -> list[Any]:
    """The same for the outputs of a frame: arrays, and pairs of features and indices."""
    return [
        tuple(like(part, example) for part in out) if isinstance(out, tuple) else like(out, example)
        for out in outputs
    ]
