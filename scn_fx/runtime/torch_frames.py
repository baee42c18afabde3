# SPDX-License-Identifier: Apache-2.0
"""The short way of torch tensors to a CUDA engine: addresses instead of DLPack.

Until a frame's kernels are launched the GPU is idle, so what happens before is part of the frame's time.
Exporting two tensors, and objects for streams and devices, cost several times as much as what is asked here.
"""

from __future__ import annotations

from typing import Any

from scn_fx.runtime.device_arrays import INDEX_ALIGNMENT, result_capsule, stream_handle

__all__ = ["TorchFrames"]


class TorchFrames:
    """Frames of plain torch tensors on one GPU.

    Args:
        torch: the module; who has tensors has imported it, so it is never imported for this.
        device: number of the GPU.
    """

    def __init__(self, torch: Any, device: int) -> None:
        self._device = device
        self._tensor, self._from_dlpack = torch.Tensor, torch.from_dlpack
        self._float16, self._float32, self._int32 = torch.float16, torch.float32, torch.int32
        # A number instead of an object; undocumented, but what torch's own generated code calls.
        self._current_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None) or (
            lambda device: int(torch.cuda.current_stream(device).cuda_stream)
        )

    def read(self, features: Any, indices: Any, stream: Any) -> tuple[int, int, int, int, bool, int] | None:
        """The arguments of `_core.CudaEngine.enqueue_at`: addresses, sites, channels, half, stream.

        None for whatever is not plainly right (types, shapes, order, place, another stream than the current
        one, no memory): that goes the general way, which copies, orders or raises.

        Raises:
            ArgumentError: `stream` is no stream.
        """
        if type(features) is not self._tensor or type(indices) is not self._tensor:
            return None
        device = self._device
        try:
            dtype, shape = features.dtype, features.shape
            half = dtype is self._float16
            if not (
                features.is_cuda
                and indices.is_cuda
                and features.get_device() == device == indices.get_device()
                and (half or dtype is self._float32)
                and indices.dtype is self._int32
                and len(shape) == 2
                and indices.shape == (shape[0], 4)
                and features.is_contiguous()
                and indices.is_contiguous()
            ):
                return None
            addresses = features.data_ptr(), indices.data_ptr()
        except RuntimeError:  # sparse and nested tensors, and those of torch.func, refuse such questions
            return None
        if 0 in addresses or addresses[1] % INDEX_ALIGNMENT:
            return None
        current = self._current_stream(device)
        if stream is not None and stream_handle(stream) != current:
            return None
        return *addresses, *shape, half, current

    def read_points(self, points: Any, stream: Any) -> tuple[tuple[int, int, int, bool], int] | None:
        """The same for points: (address, count, columns, half) and the stream."""
        if type(points) is not self._tensor:
            return None
        try:
            half, shape = points.dtype is self._float16, points.shape
            if not (
                points.is_cuda
                and points.get_device() == self._device
                and (half or points.dtype is self._float32)
                and points.is_contiguous()
            ):
                return None
            address = points.data_ptr()
        except RuntimeError:
            return None
        current = self._current_stream(self._device)
        if not address or (stream is not None and stream_handle(stream) != current):
            return None
        return (address, *shape, half), current

    def wrap(self, result: Any, copy: bool) -> Any:
        """A result as a tensor, for a frame that `read` took: the current stream is the frame's."""
        tensor = self._from_dlpack(result_capsule(result))
        return tensor.clone() if copy else tensor
