# SPDX-License-Identifier: Apache-2.0
"""Indices of networks of one and two dimensions: what an engine takes and gives, and what its core does.

The core has rows of (batch, z, y, x) alone. They are made here, where the frame lies: torch and CuPy do so on
their own device, in the order of the stream that the frame runs on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from scn_fx.dimensions import DIMENSIONS, index_text, width_advice
from scn_fx.errors import SiteError
from scn_fx.runtime import device_arrays
from scn_fx.runtime.array_kinds import ArrayKind, indices_of, shape_name
from scn_fx.runtime.host_arrays import as_numpy
from scn_fx.runtime.torch_arrays import is_torch, plain_tensor

__all__ = ["IndexColumns"]


class IndexColumns:
    """The indices of a network of `ndim` dimensions, int32 [N, ndim + 1], and rows of four columns."""

    def __init__(self, ndim: int) -> None:
        self._ndim = ndim
        self._kind: ArrayKind = indices_of(ndim)
        self._kept = [0, *range(4 - ndim, 4)]

    def check(self, indices: Any, source: str = "this file") -> None:
        """Nothing if `indices` have the network's columns, or no shape that says how many they have.

        Raises:
            SiteError: they have others; says what to do.
        """
        shape = tuple(getattr(indices, "shape", ()))
        if len(shape) != 2 or shape[1] == self._ndim + 1:
            return
        raise SiteError(
            f"indices must be int32 {index_text(self._ndim)} for {source}, which has {self._ndim} "
            f"dimension(s), got {shape_name(indices)}.{width_advice(self._ndim, 'zyx', int(shape[1]))}"
        )

    def lifted(self, indices: Any, stream: Any = None) -> Any:
        """`indices`, checked, as int32 [N, 4] of the same library in the same place; `stream` as for a call.

        Raises:
            SiteError: another shape or dtype, or an array in GPU memory of a library that cannot do it.
        """
        if self._ndim == 3:
            return indices
        if is_torch(indices):
            rows = plain_tensor(indices, "indices", self._kind)
            self._check_shape(rows)
            with _on_stream(rows, stream) as torch:
                zeros = rows.new_zeros((len(rows), 3 - self._ndim))
                return torch.cat([rows[:, :1], zeros, rows[:, 1:]], 1)
        foreign = not isinstance(indices, np.ndarray) and hasattr(indices, "__dlpack_device__")
        if foreign and device_arrays.lies_on_gpu(indices, "indices"):
            return self._lifted_on_gpu(indices, stream)
        rows = as_numpy(indices, "indices", self._kind)
        self._check_shape(rows)
        made = np.zeros((len(rows), 4), np.int32)
        made[:, self._kept] = rows
        return made

    @contextmanager
    def explained(self, indices: Any) -> Iterator[None]:
        """Within the context, a SiteError of indices that networks of other dimensions take says so."""
        try:
            yield
        except SiteError:
            shape = tuple(getattr(indices, "shape", ()))
            if len(shape) == 2 and shape[1] - 1 in DIMENSIONS:
                self.check(indices)
            raise

    def narrowed(self, results: list[Any], stream: Any = None) -> list[Any]:
        """Results of a frame; the indices of sparse ones with the network's columns."""
        if self._ndim == 3:
            return results
        return [(out[0], self.rows(out[1], stream)) if isinstance(out, tuple) else out for out in results]

    def rows(self, sites: Any, stream: Any = None) -> Any:
        """Indices [N, 4] without the columns that the network lacks; None stays None."""
        if sites is None or self._ndim == 3:
            return sites
        if is_torch(sites):
            with _on_stream(sites, stream):
                return sites[:, self._kept]
        if isinstance(sites, np.ndarray):
            return np.ascontiguousarray(sites[:, self._kept])
        if not device_arrays.is_cupy(sites):
            # Of a library that cannot do it, as the features are; the indices came from one that can.
            library = sys.modules.get("torch") or sys.modules["cupy"]
            return self.rows(library.from_dlpack(sites), stream)
        with _on_cupy_stream(sites, stream) as cupy:
            return cupy.ascontiguousarray(sites[:, self._kept])

    def _check_shape(self, rows: Any) -> None:
        self.check(rows)
        if len(rows.shape) != 2:
            raise SiteError(f"indices must be {self._kind.expected}, got {shape_name(rows)}.")

    def _lifted_on_gpu(self, indices: Any, stream: Any) -> Any:
        if not device_arrays.is_cupy(indices):
            raise SiteError(
                f"indices of a network of {self._ndim} dimension(s) in GPU memory must be a torch or CuPy "
                f"array, got {type(indices).__name__}. Convert them with torch.from_dlpack."
            )
        self._kind.check_dtype(str(indices.dtype))
        self._check_shape(indices)
        with _on_cupy_stream(indices, stream) as cupy:
            made = cupy.zeros((len(indices), 4), indices.dtype)
            made[:, self._kept] = indices
            return made


@contextmanager
def _on_stream(tensor: Any, stream: Any) -> Iterator[Any]:
    """Torch's module, with `stream` as the current one of the tensor's device where it is another."""
    torch = sys.modules["torch"]
    if stream is None or not tensor.is_cuda:
        yield torch
        return
    device = tensor.get_device()
    made = device_arrays.torch_stream(torch, device, device_arrays.stream_handle(stream))
    made.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(made):
        yield torch


@contextmanager
def _on_cupy_stream(array: Any, stream: Any) -> Iterator[Any]:
    cupy = sys.modules["cupy"]
    with cupy.cuda.Device(int(array.device)):
        if stream is None:
            yield cupy
            return
        now = cupy.cuda.get_current_stream()
        made = cupy.cuda.ExternalStream(device_arrays.stream_handle(stream))
        made.wait_event(now.record())
        with made:
            yield cupy
