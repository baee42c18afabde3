# SPDX-License-Identifier: Apache-2.0
"""Torch tensors that hold plain numbers, on any device. Torch is never imported for this."""

from __future__ import annotations

import sys
from typing import Any

from scn_fx.errors import SiteError
from scn_fx.runtime.array_kinds import ArrayKind, dtype_name

__all__ = ["check_values", "is_torch", "plain_tensor"]


def is_torch(array: Any) -> bool:
    """Whether this is a torch tensor; who has one has imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def check_values(tensor: Any, what: str) -> None:
    """Nothing if `tensor` holds values.

    Raises:
        SiteError: it is a meta tensor or a FakeTensor.
    """
    if tensor.is_meta or getattr(tensor, "fake_mode", None) is not None:
        raise SiteError(
            f"{what} is a {type(tensor).__name__} on {tensor.device} without values, as torch makes them to "
            "trace a model. Pass tensors that hold a frame."
        )


def plain_tensor(tensor: Any, what: str, kind: ArrayKind | None = None) -> Any:
    """`tensor` without gradient and lazy signs; bfloat16, which numpy lacks, as float32 (exact).

    Args:
        tensor: a torch tensor on any device.
        what: its name in messages.
        kind: which dtypes it may have; None: any.

    Raises:
        SiteError: it holds no values (meta tensors, FakeTensors), is sparse, nested or quantised, or has a
            dtype that `kind` does not read.
    """
    torch = sys.modules["torch"]
    check_values(tensor, what)
    if tensor.is_quantized:
        raise SiteError(
            f"{what} is a quantised tensor ({dtype_name(tensor.dtype)}). Pass {what}.dequantize(); the "
            "engine quantises by itself."
        )
    if tensor.is_nested or tensor.layout is not torch.strided:
        layout = "nested" if tensor.is_nested else dtype_name(tensor.layout)
        raise SiteError(
            f"{what} is a {layout} tensor, expected a dense one with a row per voxel. The rows of a "
            "sparse_coo tensor t are t.coalesce().values(), those of other kinds t.to_dense()."
        )
    if kind is not None:
        kind.check_dtype(dtype_name(tensor.dtype), is_torch=True)
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.float() if plain.dtype is torch.bfloat16 else plain
