# SPDX-License-Identifier: Apache-2.0
"""Why a forward could not be traced: where in the user's code it stopped, and what to do about it."""

from __future__ import annotations

import ast
import linecache
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import nn

from scn_fx.capture.tracing import Tracing
from scn_fx.errors import ScnError

__all__ = ["explanation", "line_of_trace", "line_text", "of_user", "place"]

_OF_DATA = ("ata-dependent", "data dependent", "Constraints violated", "unbacked", "aten._local_scalar_dense")
_OF_MEMORY = (
    "data pointer",
    ".numpy() is not supported",
    "fake tensor in the exported program",
    "FakeTensor",
    "fake mode",
)
_LINES = re.compile(r'File "([^"]+)", line (\d+), in ')
_TRIED = 3
"""Modules that are tried, from the last one that ran."""

_PART = (
    "Capture the part of the model that does without: a submodule, or a small nn.Module around it whose "
    "forward calls it with constants."
)


def explanation(
    model: nn.Module,
    error: BaseException,
    tracing: Tracing,
    numbers: Sequence[str],
    handled: BaseException | None,
) -> str:
    """One message for an error that stopped the trace; torch's own text stays with the error's cause.

    Args:
        model: the captured model.
        error: what the trace raised.
        tracing: the capture in progress, which names modules.
        numbers: arguments that are tensors of one integer.
        handled: an exception that was being handled when capture was called; it explains nothing.
    """
    ours = _of_ours(error, handled)
    if ours is not None:
        return str(ours)
    text = f"{type(error).__name__} {error}"
    where = place(error, tracing)
    name = type(model).__name__
    at = f" at {where}" if where else ""
    if "only support int32" in text:
        return f"{name} cannot be captured{at}: spconv needs int32 indices. Pass indices.int() among args."
    if any(word in text for word in _OF_DATA):
        if numbers:
            return (
                f"{name} cannot be captured{at}: the forward makes a Python number of a tensor's value. "
                f"Pass {', '.join(numbers)} as a Python number instead of a tensor."
            )
        return (
            f"{name} cannot be captured{at}: the forward decides or computes something from the "
            "voxels' values or their number, which differ from frame to frame. A batch size or grid must be "
            "a Python number among args, or be given to capture: capture(…, batch_size=…, spatial_shape=…). "
            f"{_part(tracing)}"
        )
    if any(word in text for word in _OF_MEMORY):
        return (
            f"{name} cannot be captured{at}: it runs code that reads the values of tensors (numpy, "
            ".data, compiled operators of another library), and while a model is captured tensors have "
            f"none. Layers must be those of spconv 2.x (spconv.pytorch) and torch. {_part(tracing)}"
        )
    first = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {first[0][:200].rstrip('.')}" if first else type(error).__name__
    return (
        f"{name} cannot be captured: its forward stopped{at} with {what}. Check that the model runs on "
        f"these args; if it does, torch.export cannot follow that line. {_part(tracing)}"
    )


def _part(tracing: Tracing) -> str:
    """What to capture instead: up to the last module that can be, if there is one."""
    found = _usable_end(tracing)
    if found is None:
        return _PART
    return (
        f"End the captured part before it: output={found}, what that module returns, can be captured. Or "
        f"c{_PART[1:]}"
    )


def _usable_end(tracing: Tracing) -> str | None:
    """The last value of a module that can be captured, as code; what refuses one names another before it."""
    ways = [repr(path) for path in list(tracing.ends)[: -_TRIED - 1 : -1]]
    tried: list[str] = []
    while tracing.refusal is not None and ways and len(tried) < _TRIED:
        way = ways.pop(0)
        tried.append(way)
        path = ast.literal_eval(way)
        error = tracing.refusal(path if isinstance(path, tuple) else (path,))
        if error is None:
            return way
        if error.end is not None and error.end not in tried:
            ways.insert(0, error.end)
    return None


def _of_ours(error: BaseException, handled: BaseException | None) -> ScnError | None:
    """An scn-fx error that torch may have wrapped in one of its own."""
    seen: BaseException | None = error
    while seen is not None and seen is not handled:
        if isinstance(seen, ScnError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


@dataclass(frozen=True)
class _Line:
    frame: FrameType
    number: int


def place(error: BaseException, tracing: Tracing) -> str:
    """The last line of the user's code before the error: file, line, text and module; empty without one."""
    lines = [line for line in _lines(error) if of_user(line.frame.f_code.co_filename)]
    if not lines:
        return ""
    owners = [number for number, line in enumerate(lines) if _module(line, tracing) is not None]
    if owners:  # helpers that belong to the model's package say more than its module, other libraries less
        package = _package(lines[owners[-1]])
        lines = [line for line in lines[owners[-1] :] if _package(line) == package]
    line = lines[-1]
    text = line_text(line.frame, line.number)
    module = _module(line, tracing)
    return text if module is None else f"{text} in {tracing.describe(module)}"


def _module(line: _Line, tracing: Tracing) -> nn.Module | None:
    """The module of the model whose method the line stands in."""
    module = line.frame.f_locals.get("self")
    return module if isinstance(module, nn.Module) and tracing.registered(module) else None


def _package(line: _Line) -> str:
    return str(line.frame.f_globals.get("__name__", "")).partition(".")[0]


def line_text(frame: FrameType, number: int) -> str:
    """A line of code in words: file, number, text."""
    file = frame.f_code.co_filename
    return _in_words(file, number)


def line_of_trace(trace: str) -> str:
    """The last line of the user's code in a printed stack trace, in the same words; empty without one."""
    lines = [(file, int(number)) for file, number in _LINES.findall(trace) if of_user(file)]
    return _in_words(*lines[-1]) if lines else ""


def _in_words(file: str, number: int) -> str:
    code = textwrap.shorten(linecache.getline(file, number).strip(), 100, placeholder=" …")
    return f"{os.path.basename(file)}:{number}" + (f" ({code})" if code else "")


def _lines(error: BaseException) -> Iterator[_Line]:
    trace: Any = error.__traceback__
    while trace is not None:
        yield _Line(trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next


def of_user(file: str) -> bool:
    """Whether a file is neither Python's own nor of torch, spconv or scn-fx."""
    if file.startswith("<"):
        return file.startswith("<stdin") or file.startswith("<ipython")
    path = os.path.realpath(file)
    # Installed packages lie below Python's own folder where there is no virtual environment.
    standard = os.path.realpath(os.path.dirname(os.__file__)) + os.sep
    if path.startswith(standard) and not re.search(r"[/\\](site|dist)-packages[/\\]", path):
        return False
    return not any(path.startswith(folder + os.sep) for folder in _library_folders())


def _library_folders() -> list[str]:
    folders = []
    for name in ("torch", "spconv", "spconv.pytorch", "cumm", "scn_fx"):  # "spconv" may be a stand-in
        module = sys.modules.get(name)
        if module is not None and getattr(module, "__file__", None):
            folders.append(os.path.dirname(str(module.__file__)))
    return [os.path.realpath(folder) for folder in folders]
