# SPDX-License-Identifier: Apache-2.0
"""Arrays in the memory of a GPU: torch, CuPy, and whatever else speaks DLPack.

A library is never imported for this: who has its arrays has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

from scn_fx import _core
from scn_fx.errors import ArgumentError, SiteError
from scn_fx.runtime.array_kinds import GPU_MEMORY, HOST_MEMORY, ArrayKind
from scn_fx.runtime.torch_arrays import check_values, is_torch, plain_tensor

__all__ = [
    "INDEX_ALIGNMENT",
    "DeviceArray",
    "capsule",
    "check_device",
    "current_stream",
    "is_cupy",
    "lies_on_gpu",
    "makes_copies",
    "result_capsule",
    "stream_handle",
    "torch_stream",
    "wrap",
]

_NO_ORDER = -1
INDEX_ALIGNMENT = 16
"""Bytes: a row of indices is read at once."""
_LEGACY = 1


class DeviceArray:
    """A result in GPU memory for callers without torch and CuPy: pass it to any library's ``from_dlpack``."""

    def __init__(self, array: Any, core: _core.CudaEngine, stream: int) -> None:
        self._array, self._core, self._stream = array, core, stream

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        """A capsule; work that `stream` gets from now on waits for the frame."""
        consumer = _LEGACY if stream is None else stream
        if consumer not in (_NO_ORDER, self._stream or _LEGACY):
            self._core.order(self._stream, consumer)
        return result_capsule(self._array, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's numbers of the device."""
        return GPU_MEMORY[0], self._core.device


def result_capsule(result: Any, **options: Any) -> Any:
    """The DLPack capsule of a result: older releases of nanobind return it, newer ones what makes it."""
    return result.__dlpack__(**options) if hasattr(result, "__dlpack__") else result


def is_cupy(array: Any) -> bool:
    """Whether this is a CuPy array."""
    return type(array).__module__.partition(".")[0] == "cupy"


def lies_on_gpu(array: Any, what: str) -> bool:
    """True for GPU memory, False for host memory.

    Raises:
        SiteError: neither, or no array at all.
    """
    if is_torch(array):
        check_values(array, what)
        if array.device.type in ("cpu", "cuda"):
            return array.device.type == "cuda"
        raise SiteError(f"{what} lies on {array.device}; expected the CPU or a CUDA device. Move it first.")
    if not hasattr(array, "__dlpack_device__"):
        raise SiteError(f"{what} must be a numpy, torch, CuPy or DLPack array, got {type(array).__name__}.")
    try:
        kind = int(array.__dlpack_device__()[0])
    except Exception as error:  # whatever a foreign library raises
        raise SiteError(f"{what} ({type(array).__name__}) does not say where it lies: {error}") from error
    if kind not in HOST_MEMORY + GPU_MEMORY:
        raise SiteError(f"{what} lies on a device of DLPack type {kind}; expected the CPU or CUDA (2).")
    return kind in GPU_MEMORY


def check_device(array: Any, number: int, what: str) -> None:
    """Nothing if a GPU array lies on GPU `number`, or in managed memory, which every GPU reads.

    Raises:
        SiteError: it lies on another one. Libraries refuse to hand such arrays over, each in its own words.
    """
    kind, found = (GPU_MEMORY[0], array.get_device()) if is_torch(array) else array.__dlpack_device__()
    if int(kind) == GPU_MEMORY[0] and int(found) != number:
        raise SiteError(
            f"{what} lie on cuda:{int(found)}, but this engine runs on cuda:{number}. Move them there, or "
            "make an engine for that device."
        )


def stream_handle(stream: Any) -> int:
    """The cudaStream_t behind a number, a torch stream or a CuPy stream.

    Raises:
        ArgumentError: it is none of these.
    """
    for name in ("cuda_stream", "ptr"):
        stream = getattr(stream, name, stream)
    if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
        return stream
    raise ArgumentError(
        f"stream must be a torch or CuPy stream, or a cudaStream_t as a number, got {type(stream).__name__} "
        f"{stream!r}."
    )


def current_stream(array: Any, device: int) -> int:
    """The stream on which the library of this array works now; the legacy default stream for unknown ones."""
    if is_torch(array):
        return int(sys.modules["torch"].cuda.current_stream(device).cuda_stream)
    if is_cupy(array):
        return int(sys.modules["cupy"].cuda.get_current_stream(device).ptr)
    return 0


def capsule(array: Any, device: int, stream: int, kind: ArrayKind) -> Any:
    """A DLPack capsule of a GPU array in C order, whose data is ready for work on `stream`.

    Raises:
        SiteError: a torch tensor without plain numbers of a dtype that `kind` reads.
    """
    given = array
    if is_torch(array):
        guard, array = sys.modules["torch"].cuda.device(device), plain_tensor(array, kind.name, kind)
        array = array.contiguous()
        if array.data_ptr() % INDEX_ALIGNMENT:  # a view of something else; a copy is aligned
            array = array.clone()
    elif is_cupy(array):
        guard = sys.modules["cupy"].cuda.Device(device)
        with guard:
            array = sys.modules["cupy"].ascontiguousarray(array)
            if array.data.ptr % INDEX_ALIGNMENT:
                array = array.copy()
    else:
        return array.__dlpack__(stream=stream or _LEGACY)
    ordered = stream == current_stream(array, device)
    if not ordered and is_torch(array) and array.data_ptr() != given.data_ptr():
        # A copy of ours, which torch would hand out again while `stream` still reads it.
        torch = sys.modules["torch"]
        array.record_stream(torch_stream(torch, device, stream))
    with guard:  # libraries order `stream` behind the current stream of the current device
        return array.__dlpack__(stream=_NO_ORDER if ordered else stream or _LEGACY)


def makes_copies(example: Any) -> bool:
    """Whether `wrap` copies with the library's own allocator; otherwise the engine has to."""
    return is_torch(example) or is_cupy(example)


def wrap(array: Any, example: Any, core: _core.CudaEngine, stream: int, copy: bool) -> Any:
    """A result of the engine as an array of the library of `example`, copied on `stream` if that can copy."""
    if is_torch(example):
        torch = sys.modules["torch"]
        tensor = torch.from_dlpack(result_capsule(array))
        if not copy:
            return tensor
        with torch.cuda.stream(torch_stream(torch, core.device, stream)):
            return tensor.clone()
    made = DeviceArray(array, core, stream)
    if not is_cupy(example):
        return made
    cupy = sys.modules["cupy"]
    with cupy.cuda.Device(core.device), cupy.cuda.ExternalStream(stream):
        result = cupy.from_dlpack(made)
        return result.copy() if copy else result


def torch_stream(torch: Any, device: int, stream: int) -> Any:
    """Torch's object for a cudaStream_t."""
    now = torch.cuda.current_stream(device)
    if now.cuda_stream == stream:
        return now
    return torch.cuda.ExternalStream(stream, device) if stream else torch.cuda.default_stream(device)
