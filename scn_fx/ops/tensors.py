# SPDX-License-Identifier: Apache-2.0
"""What every operator asks of its tensors, whatever they hold: dense, on one device, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from scn_fx.errors import ArgumentError

__all__ = ["check_tensors", "tensor_owner"]


def tensor_owner(operator: str, kwargs: dict[str, Any]) -> str:
    """What messages about a call of `operator` begin with: its layer, if it has a name."""
    layer = kwargs.get("name")
    return f"Layer {layer!r}" if layer else f"scn_fx::{operator}"


def check_tensors(operator: str, args: Sequence[Any], kwargs: dict[str, Any], *, in_memory: bool) -> None:
    """Tensor arguments must be dense and on one device; `in_memory`: the CPU or CUDA, and really there."""
    tensors = [value for value in args if isinstance(value, torch.Tensor)]

    def refuse(text: str) -> NoReturn:
        raise ArgumentError(f"{tensor_owner(operator, kwargs)}: {text}")

    for tensor in tensors:
        if tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
            kind = "nested" if tensor.is_nested else tensor.dtype if tensor.is_quantized else tensor.layout
            refuse(
                f"expected dense tensors, got a {str(kind).removeprefix('torch.')} one. Convert it first: "
                ".to_dense(), or .dequantize() if it is quantised."
            )
    if any(tensor.device != tensors[0].device for tensor in tensors[1:]):
        devices = ", ".join(str(tensor.device) for tensor in tensors)
        refuse(
            f"all tensors must lie on one device, got {devices}. Move them to one: features.cpu(), "
            "indices.cpu(), graph.cpu()."
        )
    if not in_memory:
        return
    for tensor in tensors:
        if tensor.device.type not in ("cpu", "cuda"):
            refuse(
                f"expected tensors on the CPU or on CUDA, got one on {tensor.device}. Move it first: .cpu() "
                "or .cuda()."
            )
        held = tensor.untyped_storage().nbytes()
        if tensor.numel() and _bytes_needed(tensor) > held:
            refuse(
                f"a tensor of shape {list(tensor.shape)} has lost its memory: its storage holds {held} "
                "bytes. Pass tensors whose storage was not resized."
            )


def _bytes_needed(tensor: torch.Tensor) -> int:
    if tensor.is_contiguous():
        return int(tensor.storage_offset() + tensor.numel()) * tensor.element_size()
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return int(tensor.storage_offset() + last + 1) * tensor.element_size()
