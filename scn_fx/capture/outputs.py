# SPDX-License-Identifier: Apache-2.0
"""Choosing outputs of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from scn_fx.capture.spconv1 import is_sparse
from scn_fx.errors import CaptureError

__all__ = ["Path", "available", "choices", "output_paths", "output_text", "select"]

Path = tuple[Any, ...]
"""Indices, keys and field names that lead into what a model returns."""


def output_paths(output: Any) -> tuple[Path, ...]:
    """The paths that `output` means: a list names several outputs, a tuple is one path, a step one alone."""
    if not isinstance(output, list):
        return (_path(output, output),)
    if not output:
        raise CaptureError("output is an empty list: name at least one output, such as output=[0].")
    paths = tuple(_path(each, output) for each in output)
    twice = [path for i, path in enumerate(paths) if path in paths[:i]]
    if twice:
        raise CaptureError(f"output names {output_text(twice[0])} twice. Name each output once.")
    return paths


def _path(output: Any, given: Any) -> Path:
    path = output if isinstance(output, tuple) else (output,)
    for step in path:
        if isinstance(step, bool) or not isinstance(step, int | str):
            inside = " in the list" if isinstance(given, list) else ""
            raise CaptureError(
                f"output must be an index, a key, a tuple of them (one path), or a list of these (several "
                f"outputs), got {given!r} (with a step of type {type(step).__name__}{inside})."
            )
    return path


def select(result: Any, path: Path, returned: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
    """The output at `path`: (tensor,), or (features, indices) of a sparse tensor.

    Where the first step is no key of `result`, it may be the path of a module: one of `returned`.

    A model that returns one tensor has it at the path (0,) and at the empty path.

    Raises:
        CaptureError: nothing is there, or no tensor; the message lists the paths that lead to one.
    """
    value = result
    if path and path[0] in returned and not _has(result, path[0]):
        value = returned[path[0]]
        for step in path[1:]:
            value = _step(value, step, value, path)
    elif not (_is_tensor(value) and path in ((0,), ())):
        for step in path:
            value = _step(value, step, result, path)
    if isinstance(value, torch.Tensor):
        return (value,)
    if is_sparse(value):
        return value.features, value.indices
    raise CaptureError(f"{output_text(path)} is a {type(value).__name__}, not a tensor. {_choices(result)}")


def _has(result: Any, step: Any) -> bool:
    """Whether a model's result has such a key or field."""
    return step in result if isinstance(result, Mapping) else step in getattr(result, "_fields", ())


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
    raise CaptureError(f"The model has no {output_text(path)}. {_choices(result)}")


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, torch.Tensor):
        yield path, f"tensor {[s if isinstance(s, int) else 'N' for s in value.shape]}"
    elif is_sparse(value):
        yield path, f"sparse tensor of {value.features.shape[1]} channels on {value.spatial_shape}"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from _walk(item, (*path, i))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or is_sparse(value)


def choices(found: list[tuple[Path, str]]) -> str:
    """The outputs that `available` found, in words."""
    return "; ".join(f"{output_text(path or (0,))}: {what}" for path, what in found)


def _choices(result: Any) -> str:
    found = available(result)
    if not found:
        return f"The model returns a {type(result).__name__} without tensors."
    return f"Available: {choices(found)}."


def output_text(path: Path) -> str:
    """A path as the user writes it: output='conv3', output=(1, 'conv3')."""
    return f"output={path[0]!r}" if len(path) == 1 else f"output={path!r}"
