# SPDX-License-Identifier: Apache-2.0
"""ONNX files as the engine's own reader takes them: a path or bytes, checked, and what is in them."""

from __future__ import annotations

import os
from typing import Any

from scn_fx.errors import OnnxError
from scn_fx.files.descriptors import own_descriptor
from scn_fx.files.reading import FileKind, check_file, read_file

__all__ = ["ONNX_FILE", "check_onnx", "model_source", "plan_refusal", "read_model"]

ONNX_FILE = FileKind(OnnxError, (2 << 30) - 1, "an ONNX file", pipes=True)
"""Protobuf messages end at 2 GiB."""

_PLAN = b"\x89SCNP"
"""How plans begin (csrc/plan_file/plan_file.cpp)."""


def model_source(path: str | os.PathLike[str]) -> str | bytes:
    """What `scn_fx._core` takes for the ONNX file at `path`: the path, or the bytes that a pipe gives.

    Raises OnnxError if there is no such file, it is of another kind (folder, pipe, device), or too large.
    """
    if own_descriptor(path) is not None:
        return read_file(path, ONNX_FILE)
    check_file(path, ONNX_FILE)
    return os.fspath(path)


def check_onnx(data: bytes, source: str | os.PathLike[str] | bytes) -> None:
    """OnnxError if `data`, which `source` names unless it is the same, is a plan: it lacks what an ONNX file
    has."""
    if data.startswith(_PLAN):
        raise plan_refusal(source)


def plan_refusal(source: str | os.PathLike[str] | bytes) -> OnnxError:
    """What to say of a plan where an ONNX file is needed."""
    name = "" if isinstance(source, bytes) else f"{os.fspath(source)}: "
    return OnnxError(
        f"{name}expected an ONNX file, got a plan, whose weights are those of one kind of processor. "
        "Name the ONNX file that it was made from (`scn-fx inspect` shows its SHA-256)."
    )


def read_model(source: str | os.PathLike[str] | bytes, path: str | os.PathLike[str] = "") -> dict[str, Any]:
    """What is in an ONNX file or a plan, given by its path or bytes: nodes, initializers, metadata, opsets.

    `plan` is what a plan says about itself, None for an ONNX file; `path` is where bytes came from, for
    messages. Raises OnnxError for a file that is none, PlanError for a plan that is damaged.
    """
    from scn_fx import _core

    given = source if isinstance(source, bytes) else model_source(source)
    if isinstance(given, bytes) and not isinstance(source, bytes):
        path = source
    try:
        found: dict[str, Any] = _core.read_onnx(given)
    except OnnxError as error:
        if not path or not isinstance(given, bytes):
            raise
        raise type(error)(f"{os.fspath(path)}: {error}") from error
    return found
