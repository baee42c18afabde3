# SPDX-License-Identifier: Apache-2.0
"""An exported network as a torch module, for detectors whose other modules stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scn_fx.errors import ArgumentError
from scn_fx.files.onnx_models import ONNX_FILE
from scn_fx.files.reading import read_file
from scn_fx.runtime.engine import Engine
from scn_fx.runtime.interfaces import DenseOutput, Interface, SparseOutput, find_interface
from scn_fx.runtime.output_shapes import output_shapes

__all__ = ["EngineModule"]


class EngineModule(nn.Module):
    """Takes the place of the module that a network was captured from.

        detector.backbone = scn_fx.EngineModule("scn.onnx", interface="centerpoint").to("cuda")

    It has no parameters: load the detector's checkpoint before the module is replaced. It follows `.to(…)`,
    can be copied and pickled (the file travels inside), and makes an engine for a device when the first frame
    comes there. It computes the same in any mode; gradients do not pass.

    Args:
        source: path of an ONNX file, or its bytes. A file is read once, here.
        interface: how the detector calls it and what it expects: "arguments" (features, indices, batch_size,
            in; the dense map out, or a sparse tensor), "mmdetection3d" (the same), "centerpoint" (a pair with
            an empty dict out), "openpcdet" (a dict in and out), or an `Interface`.
        **options: of `Engine`: threads, precision, max_voxels and so on, but not device.

    Raises:
        OnnxError, MemoryLimitError, ArgumentError: as `Engine`; the file is read by one on the CPU.
    """

    _device_probe: torch.Tensor

    def __init__(self, source: Any, *, interface: str | Interface = "arguments", **options: Any) -> None:
        super().__init__()
        if "device" in options:
            raise ArgumentError(
                "device is no option here: the module runs where it is moved to, as module.to('cuda')."
            )
        self.interface = find_interface(interface)
        engine = Engine(source, **options)
        given = engine.source
        self._file = given if isinstance(given, bytes) else read_file(Path(given), ONNX_FILE)
        self._options = options
        self._engines: dict[str, Engine] = {"cpu": engine}
        self._shapes = output_shapes(self._file)
        # moves with the module, and is no part of its state
        self.register_buffer("_device_probe", torch.empty(0), persistent=False)

    @property
    def engine(self) -> Engine:
        """The engine of the module's device."""
        device = self._device_probe.device
        name = "cpu" if device.type == "cpu" else f"{device.type}:{device.index or 0}"
        if name not in self._engines:
            self._engines[name] = Engine(self._file, name, **self._options)
        return self._engines[name]

    @torch.compiler.disable
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the replaced module returns for these arguments, values in the dtype of the features.

        Raises:
            ArgumentError: the arguments are not those of the interface, features lie on another device than
                the module, or a gradient is asked for.
            SiteError, NonFiniteError, BoundError, OverflowedError: as `Engine`.
        """
        call = self.interface.take(*args, **kwargs)
        features, indices = self._checked("features", call.features), self._checked("indices", call.indices)
        if torch.is_grad_enabled() and features.requires_grad:
            raise ArgumentError(
                "An EngineModule runs inference alone: no gradient passes through it. Call the detector "
                "under torch.no_grad() or torch.inference_mode()."
            )
        if call.batch_size is not None:
            batch = int(call.batch_size)
        else:
            batch = int(indices[:, 0].max()) + 1 if len(indices) else 1
        results = self.engine(features, indices.int().contiguous(), batch)
        results = results if isinstance(results, tuple) and len(self._shapes) > 1 else (results,)
        made = tuple(
            self._finished(result, shape, features.dtype, batch)
            for result, shape in zip(results, self._shapes, strict=True)
        )
        return self.interface.give(made[0] if len(made) == 1 else made, *args, **kwargs)

    def _checked(self, name: str, value: Any) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            raise ArgumentError(
                f"{name} must be a tensor, got {type(value).__name__}: does interface= fit the detector?"
            )
        if value.device != self._device_probe.device and not (value.is_cuda and self._device_probe.is_cuda):
            raise ArgumentError(
                f"{name} lie on {value.device}, the module on {self._device_probe.device}. Move one of them."
            )
        return value

    def _finished(
        self, result: Any, shape: tuple[int, ...] | None, dtype: torch.dtype, batch: int
    ) -> DenseOutput | SparseOutput:
        if shape is None:
            return DenseOutput(result.to(dtype), self._stride(result.shape[2:]))
        features, sites = result
        return SparseOutput(features.to(dtype), sites, shape, batch, self._stride(shape))

    def _stride(self, shape: Sequence[int]) -> int:
        # y, which is the last axis but one whether grids are (z, y, x) or (x, y, z)
        y = min(2, len(shape))
        grid = self.engine.network_grid.spatial_shape or shape
        return max(1, round(grid[-y] / shape[-y]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engines": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineModule:
        # an engine holds the memory of a frame: each copy makes its own
        copy = self.__class__.__new__(self.__class__)
        nn.Module.__init__(copy)
        copy.__dict__.update(self.__getstate__())
        copy._buffers = {
            name: tensor.clone() if tensor is not None else None for name, tensor in self._buffers.items()
        }
        memo[id(self)] = copy
        return copy

    def extra_repr(self) -> str:
        """For `repr`: the file's size, and what it runs in."""
        return (
            f"{len(self._file):,} bytes of ONNX, precision={self._options.get('precision') or 'as exported'}"
        )
