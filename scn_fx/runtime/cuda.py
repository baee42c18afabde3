# SPDX-License-Identifier: Apache-2.0
"""The engine on an NVIDIA GPU."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from scn_fx import _core
from scn_fx.errors import ArgumentError, SiteError
from scn_fx.runtime import device_arrays
from scn_fx.runtime.array_kinds import FEATURES, INDICES
from scn_fx.runtime.backend import Options
from scn_fx.runtime.host_arrays import host_frame, like_all
from scn_fx.runtime.torch_arrays import is_torch
from scn_fx.runtime.torch_frames import TorchFrames

__all__ = ["CudaBackend", "check_device"]


def check_device(number: int) -> None:
    """Nothing if this build can run on GPU `number`.

    Raises:
        ArgumentError: it cannot; says why.
    """
    info = _core.cuda_info()
    devices = info["devices"]
    if info["problem"]:
        reason = info["problem"]
    elif number >= len(devices):
        reason = (
            f"The GPUs here are cuda:0 to cuda:{len(devices) - 1}."
            if devices[1:]
            else "There is one GPU, cuda:0."
        )
    elif not devices[number]["fits"]:
        found = devices[number]
        reason = f"This build has no code for {found['name']}, architecture {found['architecture']}."
    else:
        return
    raise ArgumentError(f"device='cuda:{number}' cannot be used. {reason} See `scn-fx env`.")


_backends: weakref.WeakSet[CudaBackend] = weakref.WeakSet()


def _open_locks() -> None:
    """In the child of a fork, the thread that held a lock is not there; calls have to reach their error."""
    for backend in _backends:
        backend._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_locks)


class CudaBackend:
    """Runs frames on the caller's stream; results stay in GPU memory if the frame came from there."""

    threads = None
    isa = None

    def __init__(self, options: Options, number: int) -> None:
        check_device(number)
        self._options, self._number = options, number
        self._core = self._make()
        self._lock = threading.Lock()
        _backends.add(self)
        self._tensors: TorchFrames | None = None

    def _make(self, trace: bool = False) -> _core.CudaEngine:
        o = self._options
        return _core.CudaEngine(
            o.source,
            o.precision,
            self._number,
            o.max_batch,
            o.max_sites,
            o.graph and not trace,
            trace,
            o.spatial_shape,
            o.memory_limit,
        )

    @property
    def device(self) -> str:
        """Name of the GPU, as ``"cuda:0"``."""
        return f"cuda:{self._number}"

    @property
    def ndim(self) -> int:
        """See `Backend.ndim`."""
        return self._core.ndim

    @property
    def float32(self) -> bool:
        """See `Backend.float32`."""
        return self._core.float32

    def run(self, features: Any, indices: Any, batch_size: int, stream: Any, copy: bool) -> list[Any]:
        """See `Backend.run`; without `copy`, results in GPU memory are the engine's own."""
        tensors = self._tensors or self._meet(features)
        frame = tensors.read(features, indices, stream) if tensors else None
        if tensors is None or frame is None:
            return self._run_any(features, indices, batch_size, stream, copy)
        with self._lock:  # a frame and the copies of its results belong together
            self._core.enqueue_at(*frame, batch_size)
            return _each(lambda array: tensors.wrap(array, copy), self._core.results())

    def _run_any(self, features: Any, indices: Any, batch_size: int, stream: Any, copy: bool) -> list[Any]:
        """`run` for arrays of any kind in any place."""
        on_gpu, *frame = self._frame(features, indices, stream)
        with self._lock:
            self._core.enqueue(frame[0], frame[1], batch_size, frame[2])
            if not on_gpu:
                return like_all(self._core.to_host(), features)
            own = device_arrays.makes_copies(features)
            outputs = self._core.results(copy=copy and not own)
            return _each(
                lambda array: device_arrays.wrap(array, features, self._core, frame[2], copy), outputs
            )

    def _meet(self, features: Any) -> TorchFrames | None:
        """The short way for torch tensors once there is one: whoever has it has imported torch."""
        if is_torch(features):
            self._tensors = TorchFrames(sys.modules["torch"], self._number)
        return self._tensors

    def trace(self, features: Any, indices: Any, batch_size: int) -> list[dict[str, Any]]:
        """See `Backend.trace`."""
        _, rows, sites, stream = self._frame(features, indices, None)
        return self._make(trace=True).trace(rows, sites, batch_size, stream)

    def profile(self, features: Any, indices: Any, batch_size: int) -> list[dict[str, Any]]:
        """See `Backend.profile`."""
        _, rows, sites, stream = self._frame(features, indices, None)
        with self._lock:
            return self._core.profile(rows, sites, batch_size, stream)

    def synchronize(self) -> None:
        """See `Backend.synchronize`."""
        with self._lock:
            self._core.synchronize()

    def describe(self) -> dict[str, Any]:
        """See `Backend.describe`."""
        return self._core.describe()

    def _frame(self, features: Any, indices: Any, stream: Any) -> tuple[bool, Any, Any, int]:
        """Whether the frame lies on a GPU, its arrays as the core takes them, and its stream."""
        places = [
            device_arrays.lies_on_gpu(array, what)
            for array, what in ((features, "features"), (indices, "indices"))
        ]
        if places[0] != places[1]:
            names = ["in GPU memory" if place else "in host memory" for place in places]
            raise SiteError(f"features lie {names[0]}, but indices {names[1]}. Move them to one place.")
        on_gpu = places[0]
        if on_gpu:
            device_arrays.check_device(features, self._number, "features")
            device_arrays.check_device(indices, self._number, "indices")
        if stream is not None:
            handle = device_arrays.stream_handle(stream)
        else:
            handle = device_arrays.current_stream(features, self._number) if on_gpu else 0
        if not on_gpu:
            return False, *host_frame(features, indices), handle
        frame = ((features, FEATURES), (indices, INDICES))
        arrays = [device_arrays.capsule(array, self._number, handle, kind) for array, kind in frame]
        return True, arrays[0], arrays[1], handle


def _each(function: Callable[[Any], Any], outputs: list[Any]) -> list[Any]:
    """The same for the outputs of a frame: arrays, and pairs of features and indices."""
    return [tuple(map(function, out)) if isinstance(out, tuple) else function(out) for out in outputs]
