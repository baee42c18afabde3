# SPDX-License-Identifier: Apache-2.0
"""Types of the compiled module (see csrc/python)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

def subm_map(
    indices: np.ndarray,
    batch_size: int,
    spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    name: str = ...,
    threads: int = ...,
) -> np.ndarray: ...
def conv_map(
    indices: np.ndarray,
    batch_size: int,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_bound: int,
    name: str = ...,
    threads: int = ...,
) -> tuple[np.ndarray, np.ndarray]: ...
def inverse_map(kernel_map: np.ndarray, input_sites: int, name: str = ...) -> np.ndarray: ...
def convolution(
    features: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    kernel_map: np.ndarray,
    precision: str,
    output_precision: str,
    relu: bool,
    input_amax: float,
    weight_amax: np.ndarray | None,
    name: str = ...,
    threads: int = ...,
) -> np.ndarray: ...
def add(
    a: np.ndarray,
    b: np.ndarray,
    precision: str,
    output_precision: str,
    relu: bool,
    amax0: float,
    amax1: float,
    name: str = ...,
    threads: int = ...,
) -> np.ndarray: ...
def scatter_dense(
    features: np.ndarray,
    indices: np.ndarray,
    batch_size: int,
    shape: Sequence[int],
    name: str = ...,
    threads: int = ...,
) -> np.ndarray: ...
def widen_bfloat16(array: Any) -> np.ndarray:
    """A bfloat16 DLPack array in host memory as float32. SiteError: another dtype; TypeError: it cannot
    be read."""

def place_spans(spans: list[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Offsets of buffers (bytes, first and last step) in one arena, and its bytes (plan/arena.h)."""

def measure_peak(kind: str, threads: int, seconds: float) -> float: ...
def cpu_features() -> dict[str, Any]: ...
def cuda_info() -> dict[str, Any]: ...
def read_onnx(source: str | bytes) -> dict[str, Any]: ...

class Engine:
    def __init__(
        self,
        source: str | bytes,
        precision: str = ...,
        threads: int = ...,
        trace: bool = ...,
        spatial_shape: Sequence[int] | None = ...,
        memory_limit: int = ...,
    ) -> None: ...
    def run(
        self, features: np.ndarray, indices: np.ndarray, batch_size: int = ...
    ) -> list[np.ndarray | tuple[np.ndarray, np.ndarray]]: ...
    def trace(
        self, features: np.ndarray, indices: np.ndarray, batch_size: int = ...
    ) -> list[dict[str, Any]]: ...
    def profile(
        self, features: np.ndarray, indices: np.ndarray, batch_size: int = ...
    ) -> list[dict[str, Any]]: ...
    def describe(self) -> dict[str, Any]: ...
    @property
    def threads(self) -> int: ...
    @property
    def isa(self) -> str: ...

class CudaEngine:
    """`features` and `indices` are numpy or CUDA arrays (DLPack); `stream` is a cudaStream_t as a number."""

    def __init__(
        self,
        source: str | bytes,
        precision: str = ...,
        device: int = ...,
        max_batch: int = ...,
        max_sites: int = ...,
        graph: bool = ...,
        trace: bool = ...,
        spatial_shape: Sequence[int] | None = ...,
        memory_limit: int = ...,
    ) -> None: ...
    def enqueue(self, features: Any, indices: Any, batch_size: int = ..., stream: int = ...) -> None: ...
    def enqueue_at(
        self,
        features: int,
        indices: int,
        sites: int,
        channels: int,
        half: bool,
        stream: int,
        batch_size: int = ...,
    ) -> None:
        """The same for addresses in this GPU's memory, of arrays in C order that have been checked: float16
        (`half`) or float32 features [sites, channels], int32 indices [sites, 4]."""

    def results(self, copy: bool = ...) -> list[Any]:
        """Outputs of the frame enqueued last: DLPack objects, or pairs of them (that waits)."""

    def to_host(self) -> list[np.ndarray | tuple[np.ndarray, np.ndarray]]:
        """Waits for the frame enqueued last."""

    def trace(
        self, features: Any, indices: Any, batch_size: int = ..., stream: int = ...
    ) -> list[dict[str, Any]]: ...
    def profile(
        self, features: Any, indices: Any, batch_size: int = ..., stream: int = ...
    ) -> list[dict[str, Any]]: ...
    def synchronize(self) -> None: ...
    def order(self, earlier: int, later: int) -> None:
        """Makes the stream `later` wait for what has been enqueued on the stream `earlier`."""

    def describe(self) -> dict[str, Any]: ...
    @property
    def device(self) -> int: ...
