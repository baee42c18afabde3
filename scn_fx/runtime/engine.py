# SPDX-License-Identifier: Apache-2.0
"""`scn_fx.Engine`: runs an ONNX file of the libspconv dialect, or a plan made of one.

Needs numpy alone; torch tensors, CuPy and DLPack arrays work when their library is there.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scn_fx.dimensions import index_text
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.lidar.sites import NetworkGrid, SiteIndices
from scn_fx.runtime.backend import Backend
from scn_fx.runtime.cpu import CpuBackend
from scn_fx.runtime.cuda import CudaBackend
from scn_fx.runtime.engine_options import checked_options, gpu_number
from scn_fx.runtime.file_grid import file_grid
from scn_fx.runtime.index_columns import IndexColumns
from scn_fx.runtime.whole_numbers import whole_number

__all__ = ["Engine", "NodeTrace", "StageTime"]


@dataclass(frozen=True)
class NodeTrace:
    """What one ONNX node computed.

    `values` is float32 or float16: [N, C] on the sites `indices` (int32 [N, 4], or as many columns as the
    network takes), or a dense map with `indices` None.
    """

    name: str
    op_type: str
    values: np.ndarray
    indices: np.ndarray | None


@dataclass(frozen=True)
class StageTime:
    """Time of one stage of a frame: its kind, the layer's name, seconds, and of convolutions the
    multiply-accumulates of their active pairs and the kernel that ran, on a GPU with its configuration."""

    kind: str
    name: str
    seconds: float
    macs: int
    kernel: str = ""


class Engine:
    """Runs a sparse convolution network from its ONNX file or a plan, on the CPU or on an NVIDIA GPU.

    On a GPU, a call with arrays in GPU memory only enqueues the frame on a stream and returns at once. Its
    results are arrays of the same library, in GPU memory, ready for work on that stream. What the GPU finds
    wrong with such a frame (duplicate or outside sites, too many sites, NaN or infinite features, overflow)
    is raised later: by `synchronize()`, by the next call, or by a sparse result, whose size has to be known.
    Until then its results are meaningless. A call with arrays in host memory waits and raises at once.

    The frames of one engine belong on one stream: those of another would overwrite results in use. Use one
    engine per stream.

    Args:
        model: path of an ONNX file in the libspconv dialect, or of a plan that `scn_fx.save_plan` made of one
            for this kind of processor; or the bytes of either. Options that a plan was made with can be left
            out, others are refused.
        device: where to run: ``"cpu"``, ``"cuda"`` (the first GPU), ``"cuda:1"``, or a `torch.device`.
        precision: None runs the file's own precisions (float16 where it says none); ``"fp32"`` runs
            everything in float32, for reference and debugging.
        threads: CPU threads, 1 to 1024; None takes one per processor that this process may use. A GPU
            ignores it.
        spatial_shape: grid (z, y, x) of the input, only for files that do not say it
            (no ``input_spatial_shape``).
        graph: replay a CUDA graph instead of launching kernels one by one. The CPU ignores this and what
            follows.
        max_batch_size: the largest batch size to reserve GPU memory for; None takes the exported one.
        max_voxels: the largest number of input voxels to reserve GPU memory for; None takes the largest
            ``output_bound`` of the file's layers.
        memory_limit: bytes of host memory that weights and one frame may take together; None takes half of
            what this process may use. It is checked before memory is taken, so that no file and no frame
            can take the machine's.

    Raises:
        OnnxError: the file is no ONNX model, is damaged, or holds what the engine cannot run.
        PlanError: the plan is damaged, or was made for another version or kind of processor.
        MemoryLimitError: its weights, or its grids and dense maps in any frame, exceed `memory_limit`.
        ArgumentError: impossible options, or a device that cannot be used; says why.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        device: Any = "cpu",
        *,
        precision: str | None = None,
        threads: int | None = None,
        spatial_shape: Sequence[int] | None = None,
        graph: bool = True,
        max_batch_size: int | None = None,
        max_voxels: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        number = gpu_number(device)
        self._options = checked_options(
            model,
            precision=precision,
            threads=threads,
            spatial_shape=spatial_shape,
            graph=graph,
            max_batch_size=max_batch_size,
            max_voxels=max_voxels,
            memory_limit=memory_limit,
        )
        self._backend: Backend = (
            CpuBackend(self._options) if number is None else CudaBackend(self._options, number)
        )
        self._columns = IndexColumns(self._backend.ndim)

    @functools.cached_property
    def _network(self) -> NetworkGrid:
        # Reading the file once more takes time that loading need not take: only when somebody asks.
        return file_grid(self._options)

    @property
    def grid(self) -> VoxelGrid | None:
        """The voxel grid that the file records (see `scn_fx.capture`); None if it records none.

        ``engine(*voxelize(points, engine.grid))`` runs points.
        """
        return self._network.grid

    @property
    def network_grid(self) -> NetworkGrid:
        """All that the file says about the voxels it takes: the grid, the shape, the order of the columns."""
        return self._network

    @property
    def ndim(self) -> int:
        """Dimensions of the network, as the file says: 3, or 2 or 1. Indices have one column more."""
        return self._backend.ndim

    @property
    def source(self) -> str | bytes:
        """Path or bytes of the file."""
        return self._options.source

    @property
    def precision(self) -> str | None:
        """``"fp32"`` if everything runs in float32, None for the precisions of the file."""
        return "fp32" if self._backend.float32 else None

    @property
    def device(self) -> str:
        """Where this engine runs: ``"cpu"`` or, for example, ``"cuda:0"``."""
        return self._backend.device

    @property
    def threads(self) -> int | None:
        """Number of CPU threads; None on a GPU."""
        return self._backend.threads

    @property
    def isa(self) -> str | None:
        """Instruction set of the CPU kernels, see `scn-fx env`; SCN_FX_ISA overrides. None on a GPU."""
        return self._backend.isa

    def __repr__(self) -> str:
        """What it runs, in which precisions, and where."""
        plan = self.describe()
        kinds = Counter(step["precision"] for step in plan["steps"] if "kernel" in step)
        layers = ", ".join(f"{count} in {precision}" for precision, count in kinds.most_common())
        source = f"{len(self.source)} bytes" if isinstance(self.source, bytes) else repr(self.source)
        where = self.device if self.threads is None else f"cpu, {self.isa}, {self.threads} thread(s)"
        frame = f"features [N, {plan['input_channels']}] on indices {index_text(self.ndim)}"
        return f"<scn_fx.Engine of {source}: convolutions {layers or 'none'}; takes {frame}; on {where}>"

    def describe(self) -> dict[str, Any]:
        """The plan as plain data: fused steps, stored forms of every value, kernel maps, memory in bytes.

        ``batch_size`` is the exported one, which a call takes by itself; None where the file has no dense
        map, and so no batch size.
        """
        found = self._backend.describe()
        return {**found, "batch_size": found["batch_size"] or None}

    def __call__(
        self,
        features: Any,
        indices: Any,
        batch_size: int | None = None,
        *,
        stream: Any = None,
        copy: bool = True,
    ) -> Any:
        """Runs one frame.

        Args:
            features: float16, float32 or bfloat16 [N, C], in any byte order; what float16 cannot hold is
                rounded to it first, as libspconv requires.
            indices: int32 [N, 4], rows of (batch, z, y, x), each site once, in any order. N may be 0. Of a
                network of two dimensions (`ndim`) [N, 3] (batch, y, x), of one [N, 2] (batch, x); in GPU
                memory those are torch or CuPy arrays.
            batch_size: number of samples; None takes the exported batch size.
            stream: where to run on a GPU: a torch or CuPy stream, or a cudaStream_t as a number. None takes
                the current stream of the library that `features` belong to (other libraries: the legacy
                default stream). Keep the frame's arrays until the stream has done this work.
            copy: on a GPU, False returns the engine's own memory, which the next frame overwrites.

        Returns:
            The dense map [B, …] in float16 (float32 with ``precision="fp32"``). For a sparse output a pair
            (features [M, C], indices int32 [M, ndim + 1]): sites of the input keep its order, others ascend
            by (batch, z, y, x). A tuple of those when the file has several outputs. From host memory, arrays
            are torch tensors when `features` is one, and numpy arrays otherwise. From GPU memory they are
            torch tensors, CuPy arrays or objects with ``__dlpack__``, as `features` is; a sparse result then
            waits for the frame, a dense one does not.

        Raises:
            ArgumentError: `batch_size` or `stream` is none.
            SiteError: wrong dtype, shape, range, place, or duplicate sites.
            NonFiniteError: NaN, infinity or values beyond float16 in the features.
            BoundError: a layer has more sites than its ``output_bound``.
            OverflowedError: a layer's result does not fit in float16.
            GridError: the indices come from `scn_fx.lidar.voxelize` and another grid than the file's. Arrays
                of other origin do not say their grid.
        """
        if type(indices) is SiteIndices:
            self._network.check(indices)
        rows = self._columns.lifted(indices, stream)
        with self._columns.explained(indices):
            results = self._backend.run(features, rows, self._batch(batch_size), stream, copy)
        results = self._columns.narrowed(results, stream)
        return results[0] if len(results) == 1 else tuple(results)

    def synchronize(self) -> None:
        """Waits for every frame and raises what went wrong in one. On the CPU, does nothing."""
        self._backend.synchronize()

    def trace(self, features: Any, indices: Any, batch_size: int | None = None) -> list[NodeTrace]:
        """Runs one frame without fusing anything and returns what every ONNX node computed, in file order.

        The arithmetic is the same as that of a call; the values are those that consumers see before
        they quantise them: float32, or float16 where the node's output precision is fp16. They are numpy
        arrays on every device.
        """
        self._network.check(indices)
        rows = self._columns.lifted(indices)
        with self._columns.explained(indices):
            nodes = self._backend.trace(features, rows, self._batch(batch_size))
        return [NodeTrace(**{**node, "indices": self._columns.rows(node["indices"])}) for node in nodes]

    def profile(self, features: Any, indices: Any, batch_size: int | None = None) -> list[StageTime]:
        """Runs one frame and returns where its time went, stage by stage in the order of execution."""
        self._network.check(indices)
        rows = self._columns.lifted(indices)
        with self._columns.explained(indices):
            stages = self._backend.profile(features, rows, self._batch(batch_size))
        return [StageTime(**stage) for stage in stages]

    @staticmethod
    def _batch(batch_size: int | None) -> int:
        return 0 if batch_size is None else whole_number("batch_size", batch_size)
