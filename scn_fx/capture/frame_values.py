# SPDX-License-Identifier: Apache-2.0
"""Numbers that a forward computes from the frame, answered from the given batch size and grid.

While a model is captured its tensors have no values. Beside the indices, two small frames of real values are
kept that fill the given grid and batch: their first site is in the first corner, their last in the last
one, sites between them differ. What the forward computes from indices is computed for both, and where it asks
for a Python number (`int(coors[-1, 0]) + 1`), the answer is the number that both have. A number that depends
on more than grid and batch differs, and is refused as ever.
"""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from scn_fx.capture.explain import line_text, of_user
from scn_fx.capture.tracing import Tracing

__all__ = ["FrameValues"]

_NUMBERS = {
    torch.Tensor.item,
    torch.Tensor.tolist,
    torch.Tensor.__int__,
    torch.Tensor.__index__,
    torch.Tensor.__float__,
}
_COUNT = 2


class FrameValues(TorchFunctionMode):
    """Follows what is computed from indices, answers numbers, and lets asserts on values pass.

    Args:
        tracing: the capture in progress, with the batch size and grid that are given.
        tensors: the traced arguments.
    """

    def __init__(self, tracing: Tracing, tensors: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._tracing = tracing
        self._values: dict[int, tuple[torch.Tensor, list[torch.Tensor]]] = {}
        if tracing.batch_size is None and tracing.spatial_shape is None:
            return
        with _real():
            for tensor, frames in ((t, self._frames(t)) for t in tensors):
                if frames is not None:
                    self._values[id(tensor)] = tensor, frames

    def _frames(self, tensor: torch.Tensor) -> list[torch.Tensor] | None:
        """The two frames of an argument that holds indices [N, 4], or grid coordinates [N, 3]."""
        shape = self._tracing.spatial_shape
        columns = (4, 3) if shape is None else (len(shape) + 1, len(shape))
        if tensor.is_floating_point() or tensor.dim() != 2 or tensor.shape[1] not in columns:
            return None
        frames = []
        for number in range(_COUNT):
            # What is not given differs between the frames, so that nothing that depends on it has one answer.
            batch = self._tracing.batch_size or 3 + 4 * number
            grid = torch.tensor(shape or [size + 11 * number for size in (23, 29, 31)])
            rows = [torch.zeros(1, len(grid), dtype=torch.long), torch.arange(1, len(grid) + 1)[None] % grid]
            if number:  # more sites, in the first and the last slice of each axis too
                rows += [grid // 2 * (1 - axis) + (grid - 1) * axis for axis in torch.eye(len(grid)).long()]
                rows += [grid // 3 * (1 - axis) for axis in torch.eye(len(grid)).long()]
            sites = torch.cat([row.reshape(-1, len(grid)) for row in (*rows, grid - 1)])
            column = torch.arange(batch)[:, None].expand(batch, len(sites)).reshape(-1, 1)
            found = torch.cat([column, sites.repeat(batch, 1)], 1)
            if tensor.shape[1] == len(grid):
                found = found[:, 1:]
            frames.append(found.to(tensor.dtype))
        return frames

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _NUMBERS and id(args[0]) in self._values:
            found = self._answer(func, args[0])
            if found is not None:
                self._note(func, found)
                return found
        if func is torch.Tensor.__bool__ and self._asserted():
            return True
        result = func(*args, **kwargs)
        if self._values:
            self._follow(func, args, kwargs, result)
        return result

    def _answer(self, func: Callable[..., Any], tensor: torch.Tensor) -> Any:
        with _real():
            first, second = (func(frame) for frame in self._values[id(tensor)][1])
        return first if first == second else None

    def _note(self, func: Any, found: Any) -> None:
        line = _user_line()
        if line is not None:
            self._tracing.notes.append(
                f"{line_text(line, line.f_lineno)} makes a number of the frame; it is the constant {found} "
                "in the graph, as batch_size and spatial_shape say."
            )

    def _asserted(self) -> bool:
        """Whether the question is an assert of the model's, which says what frames must be like."""
        line = _user_line()
        if line is None or not _is_assert(line):
            return False
        self._tracing.notes.append(
            f"{line_text(line, line.f_lineno)} asserts something of the values of a frame; the graph does "
            "not check it. Sites outside the grid or the batch are refused when a frame runs."
        )
        return True

    def _follow(self, func: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        """Compute what `func` computed for the two frames, if it worked on nothing but indices."""
        if func is torch.ops.scn_fx.entry.default:  # a mark: the values are those of what it marks
            found = self._values.get(id(args[0]))
            if found is not None:
                self._values[id(result)] = result, found[1]
            return
        tensors = [each for each in _flat((args, kwargs)) if isinstance(each, torch.Tensor)]
        if not any(id(each) in self._values for each in tensors):
            return
        name = str(getattr(func, "__name__", ""))
        writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) or "out" in kwargs
        symbols = any(isinstance(each, torch.SymInt) for each in _flat((args, kwargs)))
        if symbols or any(id(each) not in self._values for each in tensors):
            if writes:
                self._values.clear()
            return
        try:
            with _real():
                made = [
                    func(*_mapped(args, self._values, number), **_mapped(kwargs, self._values, number))
                    for number in range(_COUNT)
                ]
        except Exception:  # of whatever kind: the question is only whether numbers are known
            if writes:
                self._values.clear()
            return
        for real in zip(*(_flat(each) for each in (result, *made)), strict=False):
            if all(isinstance(each, torch.Tensor) for each in real):
                self._values[id(real[0])] = real[0], list(real[1:])


class _real:
    """Within the context, tensors are real ones, and no trace sees what becomes of them."""

    def __enter__(self) -> None:
        self._contexts = (torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad())
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*error)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return [part for item in value for part in _flat(item)] if isinstance(value, tuple | list) else [value]


def _mapped(value: Any, frames: dict[int, tuple[torch.Tensor, list[torch.Tensor]]], number: int) -> Any:
    """Arguments with the values of one frame in the place of traced tensors."""
    if isinstance(value, dict):
        return {name: _mapped(item, frames, number) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_mapped(item, frames, number) for item in value)
    if isinstance(value, torch.Tensor):
        return frames[id(value)][1][number]
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _user_line() -> FrameType | None:
    """The innermost frame of the user's code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not of_user(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _is_assert(frame: FrameType) -> bool:
    """Whether the line that runs in a frame belongs to an assert statement."""
    lines = linecache.getlines(frame.f_code.co_filename)
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return False
    return any(
        isinstance(node, ast.Assert) and node.lineno <= frame.f_lineno <= (node.end_lineno or node.lineno)
        for node in ast.walk(tree)
    )
