# SPDX-License-Identifier: Apache-2.0
"""The `.tensor` container of NVIDIA's LiDAR samples: a small header, then the raw array.

Layout, all little-endian: int32 magic 0x33ff1101, int32 number of dimensions, int32 dtype code, one int32 per
dimension, then the data in C order. Nothing follows the data.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.files.atomic import write_file
from scn_fx.files.limits import largest_array_bytes
from scn_fx.files.reading import FileKind, open_file

__all__ = ["TENSOR_DTYPES", "TENSOR_MAGIC", "read_tensor", "write_tensor"]

TENSOR_MAGIC = 0x33FF1101

TENSOR_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<i4"),
    2: np.dtype("<f2"),
    3: np.dtype("<f4"),
    4: np.dtype("<i8"),
    5: np.dtype("<u8"),
    6: np.dtype("<u4"),
    7: np.dtype("i1"),
    8: np.dtype("u1"),
}
"""Dtype code in the header -> NumPy dtype of the data."""

# A header asking for more is damaged: no array of the LiDAR samples has more than five dimensions.
_MAX_DIMENSIONS = 16
_LONGEST_HEADER = 12 + 4 * _MAX_DIMENSIONS
_INT32_MAX = 2**31 - 1


def _codes() -> str:
    return ", ".join(f"{code} {dtype.name}" for code, dtype in TENSOR_DTYPES.items())


def parse_tensor(data: bytes, name: str) -> npt.NDArray[Any]:
    """The array held by the bytes of a `.tensor` file; `name` is what error messages call it."""
    start, dtype, shape = _header(data, len(data), name)
    try:
        array: npt.NDArray[Any] = np.frombuffer(data, dtype, offset=start).reshape(shape).copy()
    except ValueError as error:  # no values, but other dimensions that NumPy cannot multiply
        raise LidarError(f"{name}: {list(shape)} is no shape: {error}. Write the file again.") from error
    return array


def _header(data: bytes, size: int, name: str) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
    """Where the values start, their dtype and shape, from the first bytes of a file of `size` bytes."""
    if size < 12:
        raise LidarError(
            f"{name}: expected a .tensor header of at least 12 bytes, got a file of {size} bytes. "
            "It is empty or truncated: copy or write it again."
        )
    header = np.frombuffer(data, "<i4", count=3)
    magic, ndim, code = (int(value) for value in header)
    if magic != TENSOR_MAGIC:
        raise LidarError(
            f"{name}: expected the .tensor magic {TENSOR_MAGIC:#010x}, got {magic & 0xFFFFFFFF:#010x}. "
            "This is another kind of file; raw point files are read with read_points(path, format=...)."
        )
    if not 0 <= ndim <= _MAX_DIMENSIONS:
        raise LidarError(
            f"{name}: expected 0 to {_MAX_DIMENSIONS} dimensions, got {ndim}. The header is damaged: write "
            "the file again."
        )
    if code not in TENSOR_DTYPES:
        raise LidarError(
            f"{name}: expected a dtype code among {_codes()}, got {code}. Write the tensor again in one of "
            "these dtypes."
        )
    start = 12 + 4 * ndim
    if size < start:
        raise LidarError(
            f"{name}: expected {ndim} dimensions in a header of {start} bytes, got a file of {size} "
            "bytes. It is truncated: copy or write it again."
        )
    shape = tuple(int(n) for n in np.frombuffer(data, "<i4", count=ndim, offset=12))
    if any(n < 0 for n in shape):
        raise LidarError(
            f"{name}: expected dimensions >= 0, got {list(shape)}. The header is damaged: write the file "
            "again."
        )
    dtype = TENSOR_DTYPES[code]
    expected = start + prod(shape) * dtype.itemsize
    if size != expected:
        state = "truncated" if size < expected else "followed by bytes that do not belong to it"
        raise LidarError(
            f"{name}: expected {expected} bytes for {dtype.name} {list(shape)}, got {size}. "
            f"The tensor is {state}: copy or write it again."
        )
    return start, dtype, shape


def read_tensor(path: str | Path) -> npt.NDArray[Any]:
    """Read one `.tensor` file.

    Returns the array with the dtype and shape of the header, writable and owning its data. Raises
    `LidarError` when the file is missing, empty, truncated or longer than its header says, has another
    magic or an unknown dtype, is no regular file, or takes more than 4 GiB or half of the memory. Its size is
    compared with its header before the values are read.
    """
    kind = FileKind(LidarError, largest_array_bytes() + _LONGEST_HEADER)
    with open_file(path, kind) as source:
        _header(source.read(0, min(source.size, _LONGEST_HEADER)), source.size, str(path))
        return parse_tensor(source.content(), str(path))


def write_tensor(path: str | Path, array: npt.ArrayLike) -> None:
    """Write `array` as a `.tensor` file; `read_tensor` gives it back with the same dtype and shape.

    The file appears complete or not at all. Raises `LidarError` for a dtype without a code (float64, bool,
    …), more than 16 dimensions, or one beyond int32; `WriteError` when it cannot be written.
    """
    write_file(path, tensor_writer(path, array))


def tensor_writer(path: str | Path, array: npt.ArrayLike) -> Callable[[BinaryIO], None]:
    """A function that writes the content of `write_tensor` to a file; raises its LidarError at once."""
    values = np.asarray(array)
    codes = {dtype: code for code, dtype in TENSOR_DTYPES.items()}
    dtype = values.dtype.newbyteorder("<")
    if dtype not in codes:
        raise LidarError(
            f"{path}: a .tensor file holds one of {_codes()}, got {values.dtype.name}. Convert with "
            "array.astype(...)."
        )
    if values.ndim > _MAX_DIMENSIONS or any(n > _INT32_MAX for n in values.shape):
        raise LidarError(
            f"{path}: a .tensor file holds at most {_MAX_DIMENSIONS} dimensions of at most {_INT32_MAX}, "
            f"got {list(values.shape)}. Reshape or split the array."
        )
    header = np.array([TENSOR_MAGIC, values.ndim, codes[dtype], *values.shape], "<i4")

    def write(file: BinaryIO) -> None:
        file.write(header.tobytes())
        file.write(values.astype(dtype, copy=False).tobytes())

    return write
