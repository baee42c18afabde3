# SPDX-License-Identifier: Apache-2.0
"""
Compiled kernels and engine of scn-fx; use scn_fx.Engine and the custom operators instead.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy.typing
from numpy.typing import NDArray

def subm_map(
    indices: Annotated[NDArray, dict(writable=False)],
    batch_size: int,
    spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    name: str = "subm_map",
    threads: int = 0,
) -> numpy.typing.NDArray: ...
def conv_map(
    indices: Annotated[NDArray, dict(writable=False)],
    batch_size: int,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_bound: int,
    name: str = "conv_map",
    threads: int = 0,
) -> tuple[numpy.typing.NDArray, numpy.typing.NDArray]: ...
def inverse_map(
    kernel_map: Annotated[NDArray, dict(writable=False)], input_sites: int, name: str = "inverse_map"
) -> numpy.typing.NDArray: ...
def weight_gradient(
    grad: Annotated[NDArray, dict(writable=False)],
    features: Annotated[NDArray, dict(writable=False)],
    kernel_map: Annotated[NDArray, dict(writable=False)],
    name: str = "convolution",
    threads: int = 0,
) -> numpy.typing.NDArray:
    """
    float32 [out, K, in] of grad [M, out], features [N, in] and kernel_map int32 [M, K].
    """

def add(
    a: Annotated[NDArray, dict(writable=False)],
    b: Annotated[NDArray, dict(writable=False)],
    precision: str,
    output_precision: str,
    activation: tuple[str, float],
    amax0: float,
    amax1: float,
    name: str = "add",
    threads: int = 0,
) -> numpy.typing.NDArray: ...
def scatter_dense(
    features: Annotated[NDArray, dict(writable=False)],
    indices: Annotated[NDArray, dict(writable=False)],
    batch_size: int,
    shape: Sequence[int],
    name: str = "scatter_dense",
    threads: int = 0,
) -> numpy.typing.NDArray: ...
def convolution(
    features: Annotated[NDArray, dict(writable=False)],
    weight: Annotated[NDArray, dict(writable=False)],
    bias: Annotated[NDArray, dict(writable=False)] | None,
    kernel_map: Annotated[NDArray, dict(writable=False)],
    precision: str,
    output_precision: str,
    activation: tuple[str, float],
    input_amax: float,
    weight_amax: Annotated[NDArray, dict(writable=False)] | None,
    name: str = "convolution",
    threads: int = 0,
) -> numpy.typing.NDArray: ...

class ConvolutionProblem:
    """One convolution, to be computed by any kernel on any device."""

    def __init__(
        self,
        features: Annotated[NDArray, dict(writable=False)],
        weight: Annotated[NDArray, dict(writable=False)],
        bias: Annotated[NDArray, dict(writable=False)] | None,
        kernel_map: Annotated[NDArray, dict(writable=False)],
        precision: str,
        output_precision: str,
        activation: tuple[str, float],
        input_amax: float = 0.0,
        weight_amax: Annotated[NDArray, dict(writable=False)] | None = None,
        output_amax: float = 0.0,
        name: str = "convolution",
    ) -> None:
        """
        Arrays in host memory, in C order; they are kept, not copied.

        Args:
            features: float16 or float32 [N, in].
            weight: float16 or float32 [out, kz, ky, kx, in].
            bias: float16 or float32 [out].
            kernel_map: int32 [M, K], K = kz * ky * kx: the row of `features` that an output row reads at each
                offset, or -1.
            precision: of the products, "int8", "fp16" or "fp32".
            output_precision: "fp16" rounds the result to float16.
            activation: name and parameter, as ("LeakyReLU", 0.1) or ("None", 0.0).
            input_amax, weight_amax: dynamic ranges, for int8; the weight's are float [out].
            output_amax: dynamic range of the layer that reads the result, which is then stored as its int8
                rows, as engines do; 0 stores float16 or float32.
            name: what messages call it.

        ArgumentError for unknown names; arrays that do not fit each other are errors of `convolve`.
        """

def convolve(
    problem: ConvolutionProblem, device: str = "cpu", config: str = "", repeat: int = 0, threads: int = 0
) -> tuple[numpy.typing.NDArray, str, list[float]]:
    """
    One convolution below the engine, by one of its kernels.

    Args:
        problem: what to compute.
        device: "cpu", "cuda" or "cuda:N".
        config: the name of a kernel, one of `convolution_kernels(problem, device)`; empty for the one that
            an engine chooses.
        repeat: further runs of the product and its finish, over operands that are prepared already, to be
            timed: by the host's steady clock on the CPU, by events on a GPU.
        threads: of the CPU; 0 for all processors.

    Returns:
        The result [M, out], int8 with an `output_amax`, else float16 or float32 by the `output_precision`;
        the kernel that ran, in one line that begins with its name; the seconds of each repeated run.

    Raises:
        ArgumentError: a kernel that cannot compute the problem here, an unknown device, ranges that cannot be
            computed with.
        SiteError: arrays that do not fit each other, or a map that reads rows that are not there.
        OverflowedError, NonFiniteError: values that the precisions do not have.
        MemoryLimitError: the memory that it takes is not there.
    """

def convolution_kernels(problem: ConvolutionProblem, device: str = "cpu") -> list[str]:
    """
    The names of all kernels that can compute a problem on a device, whichever an engine would choose.

    On the CPU those of every instruction set that the processor has, and, for int8, only those that take
    negative features where there are some. Errors as for `convolve`.
    """

def widen_bfloat16(array: Annotated[NDArray, dict(device="cpu", writable=False)]) -> numpy.typing.NDArray:
    """
    A bfloat16 DLPack array in host memory as float32. SiteError: another dtype; TypeError: it cannot
    be read.
    """

def place_spans(spans: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
    """
    Offsets of buffers (bytes, first and last step) in one arena, and its bytes (plan/arena.h).
    """

def measure_peak(kind: str, threads: int, seconds: float) -> float: ...
def cpu_features() -> dict[str, Any]: ...
def read_onnx(source: str | bytes) -> dict[str, Any]:
    """Nodes, attributes and metadata of an ONNX file (path or bytes)."""

def plan_onnx(
    source: str | bytes,
    backend: str,
    precision: str = "",
    trace: bool = False,
    spatial_shape: Sequence[int] | None = None,
) -> dict[str, Any]:
    """
    What `describe` says of an engine on "cpu" or "cuda" that is not made: no GPU is needed.
    """

def plan_bytes(
    onnx: bytes,
    device: int = -1,
    precision: str = "",
    spatial_shape: Sequence[int] | None = None,
    max_batch: int = 0,
    max_sites: int = 0,
    memory_limit: int = 0,
) -> bytes:
    """
    The plan of the bytes of an ONNX file, for the CPU or (`device` >= 0) for that GPU.
    """

class Engine:
    def __init__(
        self,
        source: str | bytes,
        precision: str = "",
        threads: int = 0,
        trace: bool = False,
        spatial_shape: Sequence[int] | None = None,
        memory_limit: int = 0,
    ) -> None: ...
    def run(
        self,
        features: Annotated[NDArray, dict(order="C", device="cpu", writable=False)],
        indices: Annotated[NDArray, dict(order="C", device="cpu", writable=False)],
        batch_size: int = 0,
    ) -> list[numpy.typing.NDArray | tuple[numpy.typing.NDArray, numpy.typing.NDArray]]: ...
    def trace(
        self,
        features: Annotated[NDArray, dict(order="C", device="cpu", writable=False)],
        indices: Annotated[NDArray, dict(order="C", device="cpu", writable=False)],
        batch_size: int = 0,
    ) -> list[dict[str, Any]]: ...
    def profile(
        self,
        features: Annotated[NDArray, dict(order="C", device="cpu", writable=False)],
        indices: Annotated[NDArray, dict(order="C", device="cpu", writable=False)],
        batch_size: int = 0,
    ) -> list[dict[str, Any]]: ...
    def describe(self) -> dict[str, Any]: ...
    @property
    def threads(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def ndim(self) -> int: ...
    @property
    def float32(self) -> bool: ...

def cuda_info() -> dict[str, Any]:
    """CUDA in this build, the driver and its devices; why none can be used."""

class CudaEngine:
    """
    `features` and `indices` are numpy or CUDA arrays (DLPack); `stream` is a cudaStream_t as a number.
    """

    def __init__(
        self,
        source: str | bytes,
        precision: str = "",
        device: int = 0,
        max_batch: int = 0,
        max_sites: int = 0,
        graph: bool = True,
        trace: bool = False,
        spatial_shape: Sequence[int] | None = None,
        memory_limit: int = 0,
    ) -> None: ...
    def enqueue(
        self,
        features: Annotated[NDArray, dict(writable=False)],
        indices: Annotated[NDArray, dict(writable=False)],
        batch_size: int = 0,
        stream: int = 0,
    ) -> None: ...
    def enqueue_at(
        self,
        features: int,
        indices: int,
        sites: int,
        channels: int,
        half: bool,
        stream: int,
        batch_size: int = 0,
    ) -> None:
        """
        The same for addresses in this GPU's memory, of arrays in C order that have been checked: float16
        (`half`) or float32 features [sites, channels], int32 indices [sites, 4].
        """

    def results(self, copy: bool = False) -> list[Any]:
        """
        Outputs of the frame enqueued last: DLPack objects, or pairs of them (that waits).
        """

    def to_host(self) -> list[numpy.typing.NDArray | tuple[numpy.typing.NDArray, numpy.typing.NDArray]]:
        """Waits for the frame enqueued last."""

    def trace(
        self,
        features: Annotated[NDArray, dict(writable=False)],
        indices: Annotated[NDArray, dict(writable=False)],
        batch_size: int = 0,
        stream: int = 0,
    ) -> list[dict[str, Any]]: ...
    def profile(
        self,
        features: Annotated[NDArray, dict(writable=False)],
        indices: Annotated[NDArray, dict(writable=False)],
        batch_size: int = 0,
        stream: int = 0,
    ) -> list[dict[str, Any]]: ...
    def synchronize(self) -> None: ...
    def order(self, earlier: int, later: int) -> None:
        """
        Makes the stream `later` wait for what has been enqueued on the stream `earlier`.
        """

    def describe(self) -> dict[str, Any]: ...
    @property
    def device(self) -> int: ...
    @property
    def ndim(self) -> int: ...
    @property
    def float32(self) -> bool: ...

class CudaMap:
    def __init__(
        self,
        device: int,
        stream: int,
        name: str,
        indices: int,
        count: int,
        batch_size: int,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        subm: bool,
        transposed: bool,
        output_bound: int,
    ) -> None: ...
    @property
    def scratch_bytes(self) -> int: ...
    def set_scratch(self, scratch: int) -> None: ...
    def subm_map(self, map: int) -> None: ...
    def output_sites(self) -> int: ...
    def conv_map(self, outputs: int, sites: int, map: int) -> None: ...

class CudaConvolution:
    def __init__(
        self,
        device: int,
        stream: int,
        name: str,
        features: int,
        half_features: bool,
        in_sites: int,
        in_channels: int,
        weight: int,
        out_channels: int,
        offsets: int,
        bias: int,
        weight_amax: int,
        input_amax: float,
        map: int,
        out_sites: int,
        precision: str,
        round_output: bool,
        activation: tuple[str, float],
        kernel: str = "",
    ) -> None:
        """
        `kernel`: the name of one, see `convolution_kernels`; empty for the one that engines choose.
        """

    @property
    def scratch_bytes(self) -> int: ...
    @property
    def columns(self) -> int:
        """Values of a result's row, of which the first `out_channels` count."""

    @property
    def kernel(self) -> str:
        """
        The kernel that runs it and its config, in one line that begins with the kernel's name.
        """

    def run(self, scratch: int, result: int) -> None: ...

def cuda_inverse_map(
    device: int,
    stream: int,
    name: str,
    map: int,
    outputs: int,
    offsets: int,
    input_sites: int,
    checks: int,
    inverse: int,
) -> None:
    """
    `checks`: four int32 of scratch memory, or 0 for a map that is known to have an inverse.
    """

def cuda_add(
    device: int,
    stream: int,
    name: str,
    a: int,
    b: int,
    count: int,
    precision: str,
    round_output: bool,
    activation: tuple[str, float],
    amax0: float,
    amax1: float,
    counts: int,
    result: int,
) -> None:
    """`counts`: four int32 of scratch memory."""

def cuda_gather(
    device: int, stream: int, x: int, x_rows: int, channels: int, map: int, rows: int, offsets: int, out: int
) -> None: ...
