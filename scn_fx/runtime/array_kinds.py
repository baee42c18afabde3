# SPDX-License-Identifier: Apache-2.0
"""The two arrays of a frame: which dtypes they may have, what to do about others, and where they may lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scn_fx.dimensions import index_text
from scn_fx.errors import SiteError

__all__ = [
    "FEATURES",
    "GPU_MEMORY",
    "HOST_MEMORY",
    "INDICES",
    "ArrayKind",
    "dtype_name",
    "indices_of",
    "shape_name",
]

# Device types of DLPack.
HOST_MEMORY = (1, 3)
"""Ordinary and page-locked memory."""
GPU_MEMORY = (2, 13)
"""CUDA memory, and managed one."""


@dataclass(frozen=True)
class ArrayKind:
    """What one array of a frame is."""

    name: str
    expected: str
    """What it must be, in words."""
    dtypes: tuple[str, ...]
    """Names of the dtypes that are read, each without loss."""
    numpy_dtype: str
    """What to convert others to."""
    torch_call: str
    """How torch does that."""

    def check_dtype(self, dtype: str, is_torch: bool = False) -> None:
        """Nothing if arrays of `dtype` are read.

        Raises:
            SiteError: says how to convert them. Nothing that could lose digits is converted unasked.
        """
        if dtype in self.dtypes:
            return
        if not dtype.startswith(("float", "int", "uint", "bool")):
            advice = "Pass an array of plain numbers."
        elif is_torch:
            advice = f"Convert them first: {self.name}.{self.torch_call}."
        else:
            advice = f"Convert them first: {self.name}.astype(numpy.{self.numpy_dtype})."
        raise SiteError(f"{self.name} must be {self.expected}, got {dtype}. {advice}")


FEATURES = ArrayKind(
    "features",
    "float16, float32 or bfloat16 of shape [N, C]",
    ("float16", "float32", "bfloat16"),
    "float32",
    "float()",
)


def indices_of(ndim: int) -> ArrayKind:
    """The indices of a network of `ndim` dimensions."""
    return ArrayKind("indices", f"int32 of shape {index_text(ndim)}", ("int32",), "int32", "int()")


INDICES = indices_of(3)


def dtype_name(dtype: Any) -> str:
    """Name of a numpy or torch dtype, without byte order."""
    if getattr(dtype, "names", None):
        return f"a structured dtype with the fields {', '.join(dtype.names)}"
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.")


def shape_name(array: Any) -> str:
    """dtype and shape of an array, for messages."""
    return f"{dtype_name(array.dtype)} {list(array.shape)}"
