# SPDX-License-Identifier: Apache-2.0
"""Arrays in JSON: dtype, shape and the zlib-compressed bytes in base64."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["decoded", "encoded", "pack", "unpack"]

_DTYPES = {"int64": "<i8", "uint8": "u1", "float16": "<f2"}

# Most bytes of one array: a file may claim anything.
_LARGEST = 1 << 30


def encoded(array: npt.NDArray[Any]) -> dict[str, Any]:
    """An int64, uint8 or float16 array as JSON data."""
    name = array.dtype.name
    data = np.ascontiguousarray(array, _DTYPES[name]).tobytes()
    packed = base64.b64encode(zlib.compress(data, 6)).decode("ascii")
    return {"dtype": name, "shape": list(array.shape), "zlib": packed}


def decoded(entry: Any) -> npt.NDArray[Any]:
    """The array of such data; ValueError if it is damaged or does not say what an array is."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "zlib"}:
        raise ValueError("expected an array's dtype, shape and zlib")
    name, shape, packed = entry["dtype"], entry["shape"], entry["zlib"]
    if name not in _DTYPES or not isinstance(packed, str) or not isinstance(shape, list):
        raise ValueError("an array has an unknown dtype, or no shape or content")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"an array has the shape {str(shape)[:60]}")
    dtype = np.dtype(_DTYPES[name])
    size = math.prod(shape) * dtype.itemsize
    if size > _LARGEST:
        raise ValueError(f"an array would have {size} bytes")
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(packed, validate=True), size + 1)
    except (zlib.error, binascii.Error) as error:
        raise ValueError(f"an array's content is damaged: {error}") from error
    if len(data) != size or not stream.eof:
        raise ValueError(f"an array of shape {shape} needs {size} bytes, its content has another number")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def pack(state: Any) -> Any:
    """Nested dicts and lists with their arrays encoded."""
    if isinstance(state, np.ndarray):
        return encoded(state)
    if isinstance(state, dict):
        return {key: pack(value) for key, value in state.items()}
    return [pack(value) for value in state] if isinstance(state, list) else state


def unpack(state: Any) -> Any:
    """What `pack` was given. Raises ValueError for a damaged array."""
    if isinstance(state, dict):
        if "zlib" in state:
            return decoded(state)
        return {key: unpack(value) for key, value in state.items()}
    return [unpack(value) for value in state] if isinstance(state, list) else state
