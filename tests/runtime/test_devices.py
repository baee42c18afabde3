# SPDX-License-Identifier: Apache-2.0
"""Where an engine runs: device names, GPUs that cannot be used, arrays and streams of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scn_fx import Engine, _core
from scn_fx.errors import ArgumentError, SiteError
from scn_fx.runtime.array_kinds import FEATURES
from scn_fx.runtime.device_arrays import (
    DeviceArray,
    capsule,
    check_device,
    current_stream,
    lies_on_gpu,
    stream_handle,
)
from tests.gpu.networks import GRID, small_network
from tests.oracle.frames import random_sites

H100 = {"name": "H100", "architecture": 90, "memory": 2**36, "multiprocessors": 132, "fits": True}
INFO = {"built": True, "compiler": 13000, "architectures": ["90"], "ptx": 90, "driver": 13000, "problem": ""}
DATA = small_network()


def frame() -> tuple[np.ndarray, np.ndarray]:
    sites = random_sites(np.random.default_rng(0), 50, GRID)
    return np.ones((50, 2), np.float16), sites


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "cpu:0", "cuda:0 ", None])
def test_device_names(device: Any) -> None:
    with pytest.raises(ArgumentError, match=r"'cpu', 'cuda' or 'cuda:N', got '.*'"):
        Engine(DATA, device)


@pytest.mark.parametrize(
    ("devices", "problem", "device", "message"),
    [
        ([], "There is no NVIDIA driver on this machine.", "cuda", r"'cuda:0' .*no NVIDIA driver"),
        ([H100], "", "cuda:1", r"'cuda:1' .*There is one GPU, cuda:0"),
        ([H100, H100], "", "cuda:2", r"The GPUs here are cuda:0 to cuda:1"),
        ([H100, {**H100, "name": "V100", "architecture": 70, "fits": False}], "", "cuda:1", r"V100.* 70\."),
    ],
)
def test_a_gpu_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, devices: list[Any], problem: str, device: str, message: str
) -> None:
    monkeypatch.setattr(_core, "cuda_info", lambda: {**INFO, "devices": devices, "problem": problem})
    with pytest.raises(ArgumentError, match=rf"{message}.*See `scn-fx env`\."):
        Engine(DATA, device)


def test_info_says_why_no_gpu_can_be_used() -> None:
    info = _core.cuda_info()
    assert info.keys() == {*INFO, "devices"}
    assert bool(info["problem"]) == (not any(device["fits"] for device in info["devices"]))
    if info["built"]:
        assert info["compiler"] >= 11000 and (info["architectures"] or info["ptx"])
    else:
        assert "SCN_FX_CUDA=on" in info["problem"] and info["devices"] == []
        with pytest.raises(ArgumentError, match="no CUDA backend"):
            _core.CudaEngine(DATA)


def test_the_cpu_ignores_what_is_for_gpus_and_has_nothing_to_wait_for() -> None:
    engine = Engine(DATA, graph=False, max_batch_size=1, max_voxels=1)
    assert engine.device == "cpu" and engine.threads and engine.isa
    kept, again = engine(*frame()), engine(*frame(), copy=False)
    assert kept is not again and np.array_equal(kept, again)
    engine.synchronize()
    with pytest.raises(ArgumentError, match="no streams"):
        engine(*frame(), stream=0)


@pytest.mark.parametrize("name", ["threads", "max_batch_size", "max_voxels"])
def test_counts_are_positive(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"{name} must be at least 1.*got 0"):
        Engine(DATA, **{name: 0})


class Foreign:
    """An array of a library that nobody knows, on a device by DLPack's number."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.streams: list[Any] = []

    def __dlpack__(self, *, stream: Any = None) -> str:
        self.streams.append(stream)
        return "capsule"

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0


def test_where_arrays_lie() -> None:
    import torch

    assert not lies_on_gpu(np.zeros(3), "features") and not lies_on_gpu(torch.zeros(3), "features")
    assert lies_on_gpu(Foreign(2), "features") and lies_on_gpu(Foreign(13), "features")
    assert not lies_on_gpu(Foreign(3), "features")
    with pytest.raises(SiteError, match="indices is a Tensor on meta without values"):
        lies_on_gpu(torch.zeros(3, device="meta"), "indices")
    with pytest.raises(SiteError, match="DLPack type 10"):
        lies_on_gpu(Foreign(10), "features")
    with pytest.raises(SiteError, match="got list"):
        lies_on_gpu([1, 2], "features")


def test_arrays_of_another_gpu_are_refused() -> None:
    check_device(Foreign(2), 0, "features")
    check_device(Foreign(13), 1, "features")  # managed memory
    with pytest.raises(SiteError, match=r"features lie on cuda:0, but this engine runs on cuda:1\. Move"):
        check_device(Foreign(2), 1, "features")


def test_streams_of_torch_cupy_and_numbers() -> None:
    class Torch:
        cuda_stream = 5

    class Cupy:
        ptr = 7

    assert [stream_handle(s) for s in (Torch(), Cupy(), 0, 9)] == [5, 7, 0, 9]
    for bad in ("main", -1, 1.5, True):
        with pytest.raises(ArgumentError, match="cudaStream_t as a number"):
            stream_handle(bad)


def test_foreign_arrays_are_told_the_stream_of_the_frame() -> None:
    array = Foreign(2)
    assert current_stream(array, 0) == 0
    assert capsule(array, 0, 0, FEATURES) == capsule(array, 0, 7, FEATURES) == "capsule"
    assert array.streams == [1, 7]  # DLPack calls the legacy default stream 1


def test_a_consumer_on_another_stream_waits_for_the_frame() -> None:
    class Core:
        device = 0

        def __init__(self) -> None:
            self.orders: list[tuple[int, int]] = []

        def order(self, earlier: int, later: int) -> None:
            self.orders.append((earlier, later))

    core: Any = Core()
    for made_on, consumers in ((0, (None, 1, -1, 8)), (8, (8, -1, 1, None))):
        array = DeviceArray(Foreign(2), core, made_on)
        assert array.__dlpack_device__() == (2, 0)
        for stream in consumers:
            array.__dlpack__(stream=stream)
    assert core.orders == [(0, 8), (8, 1), (8, 1)]
