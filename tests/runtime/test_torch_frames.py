# SPDX-License-Identifier: Apache-2.0
"""Which frames of torch tensors go the short way to a CUDA engine. Stand-ins for tensors, so no GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scn_fx import _core
from scn_fx.errors import ArgumentError, SiteError
from scn_fx.runtime.array_kinds import INDICES
from scn_fx.runtime.backend import Options
from scn_fx.runtime.cuda import CudaBackend
from scn_fx.runtime.device_arrays import capsule
from scn_fx.runtime.torch_frames import TorchFrames

GPU, STREAM = 1, 70


class Tensor:
    """What the engine asks of a tensor on a GPU."""

    is_meta = is_quantized = is_nested = False
    layout = torch.strided

    def __init__(self, dtype: torch.dtype, *shape: int, **changed: Any) -> None:
        self.dtype, self.shape = dtype, torch.Size(shape)
        self.answers = {"is_cuda": True, "device": GPU, "contiguous": True, "address": 4096, **changed}
        self.is_cuda = self.answers["is_cuda"]
        self.device = SimpleNamespace(type="cuda" if self.is_cuda else "cpu")

    def get_device(self) -> int:
        return int(self.answers["device"])

    def is_contiguous(self) -> bool:
        return bool(self.answers["contiguous"])

    def data_ptr(self) -> int:
        if self.answers["address"] is None:
            raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")
        return int(self.answers["address"])

    def clone(self) -> str:
        return "copy"


class Subclass(Tensor):
    pass


class Foreign:
    """A GPU array that speaks DLPack and nothing else."""

    def __dlpack__(self, *, stream: Any = None) -> str:
        return "capsule"

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, GPU


def features(*shape: int, dtype: torch.dtype = torch.float16, **changed: Any) -> Tensor:
    return Tensor(dtype, *(shape or (3, 5)), **changed)


def indices(*shape: int, dtype: torch.dtype = torch.int32, **changed: Any) -> Tensor:
    return Tensor(dtype, *(shape or (3, 4)), **{"address": 512, **changed})


@pytest.fixture
def module() -> Any:
    """As much of torch as the short way uses; the current stream of each GPU is another."""
    return SimpleNamespace(
        Tensor=Tensor,
        float16=torch.float16,
        float32=torch.float32,
        int32=torch.int32,
        bfloat16=torch.bfloat16,
        strided=torch.strided,
        from_dlpack=lambda capsule: Tensor(torch.float16, 2),
        _C=SimpleNamespace(_cuda_getCurrentRawStream=lambda device: 69 + device),
    )


@pytest.fixture
def frames(module: Any) -> TorchFrames:
    return TorchFrames(module, GPU)


@pytest.mark.parametrize("stream", [None, STREAM, SimpleNamespace(cuda_stream=STREAM)])
def test_plain_tensors_on_the_current_stream(frames: TorchFrames, stream: Any) -> None:
    assert frames.read(features(), indices(), stream) == (4096, 512, 3, 5, True, STREAM)
    single = features(dtype=torch.float32)
    assert frames.read(single, indices(), stream) == (4096, 512, 3, 5, False, STREAM)


@pytest.mark.parametrize(
    "arrays",
    [
        (features(dtype=torch.float64), indices()),
        (features(dtype=torch.bfloat16), indices()),
        (features(), indices(dtype=torch.int64)),
        (features(15), indices()),
        (features(3, 5, 1), indices()),
        (features(2, 5), indices()),
        (features(), indices(12)),
        (features(), indices(3, 3)),
        (features(is_cuda=False), indices()),
        (features(), indices(is_cuda=False)),
        (features(device=0), indices()),
        (features(), indices(device=0)),
        (features(device=0), indices(device=0)),
        (features(contiguous=False), indices()),
        (features(), indices(contiguous=False)),
        (features(0, 5, address=0), indices(0, 4, address=0)),
        (features(), indices(address=0)),
        (features(), indices(address=4096 + 8)),
        (features(address=None), indices()),
        (Subclass(torch.float16, 3, 5), indices()),
        (features(), Subclass(torch.int32, 3, 4)),
        (features(), Foreign()),
        (Foreign(), indices()),
        (features(), [[0, 0, 0, 0]] * 3),
    ],
)
def test_everything_else_goes_the_general_way(frames: TorchFrames, arrays: tuple[Any, Any]) -> None:
    assert frames.read(*arrays, None) is None
    assert frames.read(*arrays, "not even a stream") is None, "the general way says what is wrong first"


def test_other_streams_go_the_general_way(frames: TorchFrames) -> None:
    for stream in (0, STREAM + 1, SimpleNamespace(cuda_stream=0), SimpleNamespace(ptr=5)):
        assert frames.read(features(), indices(), stream) is None
    with pytest.raises(ArgumentError, match="cudaStream_t as a number"):
        frames.read(features(), indices(), "main")


def test_a_torch_without_numbers_of_streams(module: Any) -> None:
    module._C = SimpleNamespace()
    module.cuda = SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=80 + device))
    assert TorchFrames(module, GPU).read(features(), indices(), None) == (4096, 512, 3, 5, True, 81)


@pytest.mark.filterwarnings("ignore")  # torch calls nested and CSR tensors prototypes
def test_unusual_tensors_of_torch_itself() -> None:
    frames, plain = TorchFrames(torch, 0), torch.zeros(3, 4)
    strange = [torch.nested.nested_tensor([plain]), plain.to_sparse_csr()]
    sites = torch.zeros(3, 4, dtype=torch.int32)
    for tensor in (plain, plain.to("meta"), plain.to_sparse(), torch.nn.Parameter(plain), *strange):
        assert frames.read(tensor, sites, None) is None
    torch.vmap(lambda t: t if frames.read(t, sites, None) is None else None)(plain[None])


class Exported(Tensor):
    """Says where it was when it made its capsule, and whose it was."""

    def __init__(self, address: int, made: list[str], name: str = "itself") -> None:
        super().__init__(torch.int32, 3, 4, address=address)
        self.made, self.name = made, name

    def detach(self) -> Exported:
        return self

    contiguous = resolve_conj = resolve_neg = detach

    def record_stream(self, stream: Any) -> None:
        self.made.append(f"{self.name} kept for {stream}")

    def clone(self) -> Exported:
        return Exported(4096, self.made, "a copy")

    def __dlpack__(self, *, stream: int) -> str:
        self.made.append(f"{self.name} for {stream}")
        return "capsule"


@pytest.mark.parametrize(("address", "whose"), [(4096, "itself"), (4096 + 4, "a copy")])
@pytest.mark.parametrize(("stream", "consumer"), [(STREAM, -1), (5, 5), (0, 1)])
def test_the_general_way_exports_aligned_tensors_on_their_gpu(
    address: int, whose: str, stream: int, consumer: int, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    @contextmanager
    def on_device(number: int) -> Iterator[None]:
        made.append(f"enters {number}")
        yield
        made.append("leaves")

    current = SimpleNamespace(cuda_stream=STREAM)
    module.cuda = SimpleNamespace(
        device=on_device,
        current_stream=lambda device: current,
        ExternalStream=lambda stream, device: stream,
        default_stream=lambda device: 0,
    )
    monkeypatch.setitem(sys.modules, "torch", module)
    assert capsule(Exported(address, made), GPU, stream, INDICES) == "capsule"
    # the allocator must not hand out our copy while another stream reads it
    kept = [f"a copy kept for {stream}"] if whose == "a copy" and stream != STREAM else []
    assert made == [*kept, f"enters {GPU}", f"{whose} for {consumer}", "leaves"]


class Core:
    """Writes down what the engine is asked for."""

    device = GPU

    def __init__(self, *options: Any) -> None:
        self.calls: list[Any] = []

    def enqueue(self, *arguments: Any) -> None:
        self.calls.append(("enqueue", *arguments))

    def enqueue_at(self, *arguments: Any) -> None:
        self.calls.append(("enqueue_at", *arguments))

    def results(self, copy: bool = False) -> list[Any]:
        self.calls.append(copy)
        return ["dense", ("values", "sites")]


@pytest.fixture
def backend(module: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    found = {"name": "H100", "architecture": 90, "memory": 2**36, "multiprocessors": 132, "fits": True}
    monkeypatch.setattr(_core, "cuda_info", lambda: {"problem": "", "devices": [found] * (GPU + 1)})
    monkeypatch.setattr(_core, "CudaEngine", Core)
    monkeypatch.setitem(sys.modules, "torch", module)
    return CudaBackend(Options(b""), GPU)


def test_a_backend_passes_addresses_and_wraps_every_result(backend: Any) -> None:
    dense, (values, sites) = backend.run(features(), indices(), 2, None, True)
    assert dense == values == sites == "copy"
    dense, (values, sites) = backend.run(features(), indices(), 0, STREAM, False)
    assert {type(tensor) for tensor in (dense, values, sites)} == {Tensor}
    address = ("enqueue_at", 4096, 512, 3, 5, True, STREAM)
    assert backend._core.calls == [(*address, 2), False, (*address, 0), False]


def test_a_backend_serves_other_libraries_before_and_after_torch(backend: Any) -> None:
    general = ("enqueue", "capsule", "capsule", 1, 9)
    for _ in range(2):
        backend._core.calls.clear()
        backend.run(Foreign(), Foreign(), 1, 9, True)
        assert backend._core.calls == [general, True]
        backend.run(features(), indices(), 1, None, True)
    with pytest.raises(SiteError, match="features lie in GPU memory, but indices in host memory"):
        backend.run(features(), indices(is_cuda=False), 1, None, True)
