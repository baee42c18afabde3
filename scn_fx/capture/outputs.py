# SPDX-License-Identifier: Apache-2.0
"""Choosing one of a model's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from scn_fx.capture.packages import spconv
from scn_fx.errors import CaptureError

__all__ = ["available", "choices", "output_path", "select"]

Path = tuple[Any, ...]


def output_path(output: Any) -> Path:
    """The path that `output` means: an index or key is a path of one step."""
    path = tuple(output) if isinstance(output, tuple | list) else (output,)
    for step in path:
        if isinstance(step, bool) or not isinstance(step, int | str):
            raise CaptureError(
                f"output must be an index, a key, or a tuple of them, got {output!r} "
                f"(with a step of type {type(step).__name__})."
            )
    return path


def select(result: Any, path: Path) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """The output at `path`: a tensor, or (features, indices) of a sparse tensor.

    A model that returns one tensor has it at the path (0,) and at the empty path.

    Raises:
        CaptureError: nothing is there, or no tensor; the message lists the paths that lead to one.
    """
    value = result
    if not (_is_tensor(value) and path in ((0,), ())):
        for step in path:
            value = _step(value, step, result, path)
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, spconv().SparseConvTensor):
        return value.features, value.indices
    raise CaptureError(f"output={_text(path)} is a {type(value).__name__}, not a tensor. {_choices(result)}")


def available(result: Any) -> list[tuple[Path, str]]:
    """Every path to a tensor in a model's result, with a description of the tensor."""
    return list(_walk(result, ()))


def _step(value: Any, step: int | str, result: Any, path: Path) -> Any:
    if isinstance(value, Mapping):
        if step in value:
            return value[step]
    elif isinstance(value, tuple | list):
        if isinstance(step, int) and -len(value) <= step < len(value):
            return value[step]
        if isinstance(step, str) and step in getattr(value, "_fields", ()):
            return getattr(value, step)
    raise CaptureError(f"The model has no output {_text(path)}. {_choices(result)}")


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, torch.Tensor):
        yield path, f"tensor {[s if isinstance(s, int) else 'N' for s in value.shape]}"
    elif isinstance(value, spconv().SparseConvTensor):
        yield path, f"sparse tensor of {value.features.shape[1]} channels on {value.spatial_shape}"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from _walk(item, (*path, i))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor | spconv().SparseConvTensor)


def choices(found: list[tuple[Path, str]]) -> str:
    """The outputs that `available` found, in words."""
    return "; ".join(f"output={_text(path or (0,))}: {what}" for path, what in found)


def _choices(result: Any) -> str:
    found = available(result)
    if not found:
        return f"The model returns a {type(result).__name__} without tensors."
    return f"Available: {choices(found)}."


def _text(path: Path) -> str:
    return repr(path[0]) if len(path) == 1 else repr(path)
