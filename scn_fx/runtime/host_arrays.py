# SPDX-License-Identifier: Apache-2.0
"""Arrays in host memory: numpy, torch on the CPU, and whatever else speaks DLPack."""

from __future__ import annotations

from typing import Any

import numpy as np

from scn_fx import _core
from scn_fx.errors import SiteError
from scn_fx.runtime.array_kinds import FEATURES, HOST_MEMORY, INDICES, ArrayKind, dtype_name
from scn_fx.runtime.torch_arrays import is_torch, plain_tensor

__all__ = ["as_numpy", "host_frame", "like", "like_all"]


def host_frame(features: Any, indices: Any) -> tuple[np.ndarray, np.ndarray]:
    """A frame as arrays in C order and native byte order: float16 or float32 features, int32 indices.

    Both are views where they can be. bfloat16 features become float32, which is exact.

    Raises:
        SiteError: another dtype, another kind of array, or one that lies elsewhere.
    """
    return as_numpy(features, "features", FEATURES), as_numpy(indices, "indices", INDICES)


def as_numpy(array: Any, what: str, kind: ArrayKind | None = None) -> np.ndarray:
    """A numpy view (or copy) in C order and native byte order of an array in host memory.

    bfloat16, which numpy lacks, becomes float32 (exact).

    Args:
        array: a numpy, torch or DLPack array.
        what: its name in messages.
        kind: which dtypes it may have; None: any.

    Raises:
        SiteError: it is none, lies elsewhere, has masked entries, or a dtype that `kind` does not read.
    """
    if is_torch(array):
        return np.asarray(_torch_as_numpy(array, what, kind), order="C")
    if isinstance(array, np.ndarray):
        found = array
    elif hasattr(array, "__dlpack__"):
        found = _dlpack_as_numpy(array, what)
    else:
        raise SiteError(
            f"{what} must be a numpy, torch or DLPack array, got {type(array).__name__}. Try "
            f"numpy.asarray({what})."
        )
    if np.ma.is_masked(found):
        raise SiteError(
            f"{what} is a masked array with masked entries, which have no value. Leave those rows out, or "
            f"fill them: {what}.filled(0)."
        )
    name = dtype_name(found.dtype)
    if kind is not None:
        kind.check_dtype(name)
    if name == "bfloat16":
        return np.asarray(found, np.float32, order="C")
    return np.asarray(found, found.dtype.newbyteorder("="), order="C")


def _torch_as_numpy(tensor: Any, what: str, kind: ArrayKind | None) -> np.ndarray:
    plain = plain_tensor(tensor, what, kind)
    if plain.device.type != "cpu":
        engine = f", or an engine made with device={str(plain.device)!r}" if plain.is_cuda else ""
        raise SiteError(
            f"{what} lies on {plain.device}, but is read on the CPU. Pass {what}.cpu() instead{engine}."
        )
    try:
        found: np.ndarray = plain.numpy()
    except (RuntimeError, TypeError) as error:  # tensors of torch.func, wrapper subclasses
        raise SiteError(
            f"{what} is a {type(tensor).__name__} that has no plain memory to read. Pass a torch.Tensor that "
            "holds a frame, outside of torch.func and torch.compile."
        ) from error
    return found


def _dlpack_as_numpy(array: Any, what: str) -> np.ndarray:
    kind = type(array).__name__
    try:
        place = int(array.__dlpack_device__()[0])
        if place in HOST_MEMORY:
            return _imported(array)
    except Exception as error:  # whatever a foreign library raises
        raise SiteError(
            f"{what} ({kind}) cannot be read through DLPack: {error} Try numpy.asarray({what})."
        ) from error
    raise SiteError(
        f"{what} ({kind}) lies on a device of DLPack type {place}, but is read on the CPU (1). Copy it there "
        "first, or, from a CUDA device (2), use an engine made with device='cuda'."
    )


def _imported(array: Any) -> np.ndarray:
    try:
        return np.from_dlpack(array)
    except (BufferError, RuntimeError) as error:
        try:
            return _core.widen_bfloat16(array)
        except TypeError:  # it is none
            raise error from None


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
