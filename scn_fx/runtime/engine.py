# SPDX-License-Identifier: Apache-2.0
"""`scn_fx.Engine`: runs an ONNX file of the libspconv dialect.

Needs numpy alone; torch tensors work when torch is there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scn_fx import _core
from scn_fx.errors import ArgumentError, SiteError

__all__ = ["Engine", "NodeTrace", "StageTime"]


@dataclass(frozen=True)
class NodeTrace:
    """What one ONNX node computed.

    `values` is float32 or float16: [N, C] on the sites `indices` (int32 [N, 4]), or a dense map with
    `indices` None.
    """

    name: str
    op_type: str
    values: np.ndarray
    indices: np.ndarray | None


@dataclass(frozen=True)
class StageTime:
    """Time of one stage of a frame: its kind, the layer's name, seconds, and the multiply-accumulates of its
    active pairs (convolutions only)."""

    kind: str
    name: str
    seconds: float
    macs: int


def _is_torch(array: Any) -> bool:
    return type(array).__module__.partition(".")[0] == "torch"


def _to_numpy(array: Any, what: str) -> np.ndarray:
    """A C-contiguous numpy view (or copy) of a numpy, torch or DLPack array in host memory."""
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array)
    if _is_torch(array):
        if array.device.type != "cpu":
            raise SiteError(
                f"{what} lies on {array.device}, but this engine runs on the CPU. Pass {what}.cpu() instead."
            )
        return np.ascontiguousarray(array.detach().numpy())
    if hasattr(array, "__dlpack__"):
        return np.ascontiguousarray(np.from_dlpack(array))
    raise SiteError(f"{what} must be a numpy, torch or DLPack array, got {type(array).__name__}.")


def _like(array: np.ndarray, example: Any) -> Any:
    if not _is_torch(example):
        return array
    import torch

    return torch.from_numpy(array)


class Engine:
    """Runs a sparse convolution network from its ONNX file.

    Args:
        model: path of an ONNX file in the libspconv dialect, or its bytes.
        device: where to run; this build has ``"cpu"``.
        precision: None runs the file's own precisions (float16 where it says none); ``"fp32"`` runs
            everything in float32, for reference and debugging.
        threads: CPU threads, at least 1; None takes one per processor that this process may use.
        spatial_shape: grid (z, y, x) of the input, only for files that do not say it
            (no ``input_spatial_shape``).

    Raises:
        OnnxError: the file is no ONNX model, is damaged, or holds what the engine cannot run.
        ArgumentError: impossible options.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        device: str = "cpu",
        *,
        precision: str | None = None,
        threads: int | None = None,
        spatial_shape: Sequence[int] | None = None,
    ) -> None:
        if str(device) != "cpu":
            raise ArgumentError(
                f"device must be 'cpu': this build has no backend for {str(device)!r}. See `scn-fx env`."
            )
        if threads is not None and threads < 1:
            raise ArgumentError(f"threads must be at least 1 (or None for all processors), got {threads}.")
        if precision not in (None, "fp32"):
            raise ArgumentError(
                f"precision must be None (what the file says) or 'fp32', got {precision!r}. "
                "Other precisions are chosen before export, with quant.calibrate."
            )
        self._source = model if isinstance(model, bytes) else os.fspath(model)
        self._precision = precision or ""
        self._threads = threads or 0
        self._spatial_shape = None if spatial_shape is None else [int(n) for n in spatial_shape]
        self._core = _core.Engine(
            self._source, self._precision, self._threads, spatial_shape=self._spatial_shape
        )

    @property
    def source(self) -> str | bytes:
        """Path or bytes of the ONNX file."""
        return self._source

    @property
    def precision(self) -> str | None:
        """``"fp32"`` if everything runs in float32, None for the precisions of the file."""
        return self._precision or None

    @property
    def device(self) -> str:
        """Where this engine runs."""
        return "cpu"

    @property
    def threads(self) -> int:
        """Number of CPU threads."""
        return self._core.threads

    @property
    def isa(self) -> str:
        """Instruction set of the CPU kernels: avx512vnni, avxvnni, avx2 or portable; SCN_FX_ISA overrides."""
        return self._core.isa

    def describe(self) -> dict[str, Any]:
        """The plan as plain data: fused steps, stored forms of every value, kernel maps, memory in bytes."""
        return self._core.describe()

    def __call__(self, features: Any, indices: Any, batch_size: int | None = None) -> Any:
        """Runs one frame.

        Args:
            features: float16 or float32 [N, C]; float32 is rounded to float16 first, as libspconv requires.
            indices: int32 [N, 4], rows of (batch, z, y, x), each site once, in any order. N may be 0.
            batch_size: number of samples; None takes the exported batch size.

        Returns:
            The dense map [B, …] in float16 (float32 with ``precision="fp32"``). For a sparse output a pair
            (features [M, C], indices int32 [M, 4]): sites of the input keep its order, others ascend by
            (batch, z, y, x). A tuple of those when the file has several outputs. Arrays are torch tensors
            when `features` is one, and numpy arrays otherwise.

        Raises:
            SiteError: wrong dtype, shape, range, or duplicate sites.
            NonFiniteError: NaN, infinity or values beyond float16 in the features.
            BoundError: a layer has more sites than its ``output_bound``.
            OverflowedError: a layer's result does not fit in float16.
        """
        outputs = self._core.run(
            _to_numpy(features, "features"), _to_numpy(indices, "indices"), self._batch(batch_size)
        )
        results = [
            tuple(_like(part, features) for part in out) if isinstance(out, tuple) else _like(out, features)
            for out in outputs
        ]
        return results[0] if len(results) == 1 else tuple(results)

    def trace(self, features: Any, indices: Any, batch_size: int | None = None) -> list[NodeTrace]:
        """Runs one frame without fusing anything and returns what every ONNX node computed, in file order.

        The arithmetic is the same as that of a call; the values are those that consumers see before
        they quantise them: float32, or float16 where the node's output precision is fp16.
        """
        core = _core.Engine(
            self._source, self._precision, self._threads, trace=True, spatial_shape=self._spatial_shape
        )
        nodes = core.trace(
            _to_numpy(features, "features"), _to_numpy(indices, "indices"), self._batch(batch_size)
        )
        return [NodeTrace(**node) for node in nodes]

    def profile(self, features: Any, indices: Any, batch_size: int | None = None) -> list[StageTime]:
        """Runs one frame and returns where its time went, stage by stage in the order of execution."""
        stages = self._core.profile(
            _to_numpy(features, "features"), _to_numpy(indices, "indices"), self._batch(batch_size)
        )
        return [StageTime(**stage) for stage in stages]

    @staticmethod
    def _batch(batch_size: int | None) -> int:
        if batch_size is not None and batch_size < 1:
            raise ArgumentError(f"batch_size must be at least 1, got {batch_size}.")
        return batch_size or 0
