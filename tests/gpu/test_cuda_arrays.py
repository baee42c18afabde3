# SPDX-License-Identifier: Apache-2.0
"""Arrays and streams of a CUDA engine: what goes in, what comes out, and when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scn_fx import Engine
from scn_fx.errors import ScnError, SiteError
from scn_fx.runtime.torch_frames import TorchFrames
from tests.gpu.networks import GRID, small_network
from tests.oracle.compare import assert_same_bits
from tests.oracle.frames import random_sites
from tests.oracle.random_networks import wide_network

pytestmark = pytest.mark.gpu

Arrays = tuple[np.ndarray, np.ndarray]


def frame(seed: int, count: int = 200) -> Arrays:
    rng = np.random.default_rng(seed)
    sites = random_sites(rng, count, GRID)
    return rng.normal(size=(len(sites), 2)).astype(np.float16), sites


def on_gpu(arrays: Arrays) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(arrays[0]).cuda(), torch.from_numpy(arrays[1]).cuda()


class Foreign:
    """A GPU array that speaks DLPack, and says its shape and dtype as every array does."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.shape, self.dtype = tensor, tuple(tensor.shape), str(tensor.dtype)[6:]

    def __dlpack__(self, **options: Any) -> Any:
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


@pytest.fixture(scope="module")
def data() -> bytes:
    return small_network()


@pytest.fixture
def short_ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every frame with torch tensors, whether it goes the short way, by address."""
    read, found = TorchFrames.read, []

    def spy(self: TorchFrames, *arguments: Any) -> Any:
        frame = read(self, *arguments)
        found.append(frame is not None)
        return frame

    monkeypatch.setattr(TorchFrames, "read", spy)
    return found


def test_results_are_of_the_kind_of_the_features(data: bytes) -> None:
    arrays = frame(0)
    expected, engine = Engine(data)(*arrays), Engine(data, "cuda")
    dense = engine(*arrays)
    assert isinstance(dense, np.ndarray)
    assert_same_bits(dense, expected)
    dense = engine(torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1]))
    assert isinstance(dense, torch.Tensor) and dense.device.type == "cpu"
    assert_same_bits(dense.numpy(), expected)
    dense = engine(*on_gpu(arrays))
    assert isinstance(dense, torch.Tensor) and str(dense.device) == "cuda:0"
    assert_same_bits(dense.cpu().numpy(), expected)
    features, sites = on_gpu(arrays)
    made = engine(Foreign(features), Foreign(sites))
    assert made.__dlpack_device__() == (2, 0)
    assert_same_bits(torch.from_dlpack(made).cpu().numpy(), expected)


def test_float32_and_strided_and_differentiable_features(data: bytes) -> None:
    arrays = frame(1)
    expected, engine = Engine(data)(*arrays), Engine(data, torch.device("cuda"))
    features, sites = on_gpu(arrays)
    assert_same_bits(engine(features.float(), sites).cpu().numpy(), expected)
    assert_same_bits(engine(features.float().requires_grad_(), sites).cpu().numpy(), expected)
    wide = torch.cat([features, features], 1)
    assert_same_bits(engine(wide[:, :2], sites.T.contiguous().T).cpu().numpy(), expected)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_short_and_the_general_way_have_the_same_bits(sparse: bool, short_ways: list[bool]) -> None:
    data, arrays = small_network(sparse=sparse), frame(10)
    expected = Engine(data)(*arrays)

    def check(*arguments: Any, short: bool, **options: Any) -> None:
        got = engine(*arguments, **options)
        torch.cuda.synchronize()
        assert short_ways == [short]
        short_ways.clear()
        for left, right in zip(got if sparse else (got,), expected if sparse else (expected,), strict=True):
            assert type(left) is torch.Tensor and str(left.device) == "cuda:0"
            assert_same_bits(left.cpu().numpy(), right)

    engine = Engine(data, "cuda")
    features, sites = on_gpu(arrays)
    current, other = torch.cuda.current_stream(), torch.cuda.Stream()
    torch.cuda.synchronize()
    for copy in (True, False):
        for stream in (None, current, current.cuda_stream):
            check(features, sites, short=True, stream=stream, copy=copy)
        check(features.float(), sites, short=True, copy=copy)
        check(features.float().requires_grad_(), sites, short=True, copy=copy)
        check(torch.cat([features, features])[len(features) :], sites, short=True, copy=copy)
        check(torch.cat([features, features], 1)[:, :2], sites, short=False, copy=copy)
        check(features, sites.T.contiguous().T, short=False, copy=copy)
        check(torch.nn.Parameter(features), sites, short=False, copy=copy)
        check(features, sites, short=False, stream=other, copy=copy)
        with torch.cuda.stream(other):
            check(features, sites, short=True, copy=copy)
            check(features, sites, short=True, stream=other, copy=copy)
            check(features, sites, short=False, stream=current, copy=copy)


def test_a_frame_without_sites(data: bytes) -> None:
    empty = np.zeros((0, 2), np.float16), np.zeros((0, 4), np.int32)
    engine, expected = Engine(data, "cuda"), Engine(data)(*empty)
    for count in (3, 0, 0):
        arrays = tuple(array[:count] for array in frame(11))
        got = engine(*on_gpu(arrays))
        assert_same_bits(got.cpu().numpy(), expected if count == 0 else Engine(data)(*arrays))


@pytest.mark.parametrize(
    ("features", "sites", "batch_size"),
    [
        ((3, 5, torch.float16), (3, 4, torch.int32), None),
        ((3, 0, torch.float16), (3, 4, torch.int32), None),
        ((2, 2, torch.float16), (3, 4, torch.int32), None),
        ((3, 2, torch.int32), (3, 4, torch.int32), None),
        ((3, 2, torch.float64), (3, 4, torch.int32), None),
        ((6, torch.float16), (3, 4, torch.int32), None),
        ((3, 2, 1, torch.float16), (3, 4, torch.int32), None),
        ((3, 2, torch.float16), (3, 4, torch.int64), None),
        ((3, 2, torch.float16), (3, 3, torch.int32), None),
        ((3, 2, torch.float16), (12, torch.int32), None),
        ((9, 2, torch.float16), (9, 4, torch.int32), None),
        ((3, 2, torch.float16), (3, 4, torch.int32), 7),
    ],
)
def test_both_ways_refuse_in_the_same_words(
    data: bytes, features: Any, sites: Any, batch_size: int | None
) -> None:
    arrays = [torch.zeros(shape, dtype=dtype, device="cuda") for *shape, dtype in (features, sites)]
    engine, said = Engine(data, "cuda", max_voxels=8), []
    for wrap in (lambda t: t, Foreign):
        with pytest.raises(ScnError) as error:
            engine(*map(wrap, arrays), batch_size)
        said.append((type(error.value), str(error.value)))
    (kind, text), (foreign_kind, foreign_text) = said
    assert kind is foreign_kind
    wrong_dtype = features[-1] not in (torch.float16, torch.float32) or sites[-1] is not torch.int32
    if wrong_dtype:  # a torch tensor is told torch's call
        assert ".float()" in text or ".int()" in text
        assert text.split()[0] == foreign_text.split()[0]
    else:
        assert text == foreign_text


def test_a_result_outlives_the_next_frame_unless_it_is_the_engines_own(data: bytes) -> None:
    engine, cpu = Engine(data, "cuda"), Engine(data)
    first, second = frame(2), frame(3)
    for wrap in (lambda t: t, Foreign):
        kept = engine(*map(wrap, on_gpu(first)))
        own = engine(*map(wrap, on_gpu(first)), copy=False)
        again = engine(*map(wrap, on_gpu(second)), copy=False)
        kept, own, again = (torch.from_dlpack(t) for t in (kept, own, again))
        assert own.data_ptr() == again.data_ptr() != kept.data_ptr()
        assert_same_bits(kept.cpu().numpy(), cpu(*first))
        assert_same_bits(own.cpu().numpy(), cpu(*second))


def test_a_result_outlives_the_engine(data: bytes) -> None:
    arrays = frame(4)
    own = Engine(data, "cuda")(*on_gpu(arrays), copy=False)
    foreign = Engine(data, "cuda")(*map(Foreign, on_gpu(arrays)))
    torch.cuda.synchronize()
    assert_same_bits(own.cpu().numpy(), Engine(data)(*arrays))
    assert_same_bits(torch.from_dlpack(foreign).cpu().numpy(), Engine(data)(*arrays))


def test_sparse_results() -> None:
    data, arrays = small_network(sparse=True), frame(5)
    values, sites = Engine(data)(*arrays)
    engine = Engine(data, "cuda")
    for count in (len(arrays[1]), 7, 0, 1):
        cut = arrays[0][:count], arrays[1][:count]
        values, sites = Engine(data)(*cut)
        for copy in (True, False):
            got = engine(*on_gpu(cut), copy=copy)
            assert_same_bits(got[0].cpu().numpy(), values)
            np.testing.assert_array_equal(got[1].cpu().numpy(), sites)
        host = engine(*cut)
        assert_same_bits(host[0], values)
        np.testing.assert_array_equal(host[1], sites)


def test_frames_run_on_the_current_stream(data: bytes) -> None:
    """A frame follows the work that makes its features, without any synchronisation."""
    arrays = frame(6)
    expected, engine = Engine(data)(*arrays), Engine(data, "cuda")
    features, sites = on_gpu(arrays)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = torch.zeros_like(features)
        torch.cuda._sleep(50_000_000)
        late.copy_(features)
        dense = engine(late, sites)
    stream.synchronize()
    assert_same_bits(dense.cpu().numpy(), expected)
    for given in (stream, stream.cuda_stream):
        dense = engine(features, sites, stream=given)
        stream.synchronize()
        assert_same_bits(dense.cpu().numpy(), expected)


def test_two_engines_on_two_streams(data: bytes) -> None:
    cpu, streams = Engine(data), (torch.cuda.Stream(), torch.cuda.Stream())
    engines = [Engine(data, "cuda") for _ in streams]
    frames = [frame(seed, 50 + seed) for seed in range(20)]
    inputs = [on_gpu(arrays) for arrays in frames]
    torch.cuda.synchronize()
    results = []
    for number, arrays in enumerate(inputs):
        with torch.cuda.stream(streams[number % 2]):
            results.append(engines[number % 2](*arrays))
    torch.cuda.synchronize()
    for arrays, dense in zip(frames, results, strict=True):
        assert_same_bits(dense.cpu().numpy(), cpu(*arrays))


def test_a_frame_within_the_callers_graph(data: bytes) -> None:
    cpu, engine = Engine(data), Engine(data, "cuda")
    first, second = frame(7), frame(8)
    features, sites = on_gpu(first)
    engine(features, sites)
    engine.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = engine(features, sites) * 2
    for arrays in (first, second, first):
        for target, source in zip((features, sites), on_gpu(arrays), strict=True):
            target.copy_(source)
        graph.replay()
        torch.cuda.synchronize()
        assert_same_bits(doubled.cpu().numpy(), cpu(*arrays) * np.float16(2))
    assert_same_bits(engine(*second), cpu(*second))


@pytest.mark.parametrize("seed", range(3000, 3020))
def test_wide_networks_from_gpu_memory(seed: int) -> None:
    network = wide_network(seed, "int8")
    expected = Engine(network.onnx)(network.features, network.sites, network.batch_size)
    engine = Engine(network.onnx, "cuda", max_batch_size=network.batch_size)
    got = engine(*on_gpu((network.features, network.sites)), network.batch_size)

    def flat(outputs: Any) -> list[Any]:
        return [part for out in outputs for part in flat(out)] if isinstance(outputs, tuple) else [outputs]

    for left, right in zip(flat(got), flat(expected), strict=True):
        assert_same_bits(left.cpu().numpy(), right, network.summary)


def test_indices_within_something_else_are_read(data: bytes) -> None:
    """A row is read at once, which needs an aligned address."""
    arrays = frame(10)
    features, sites = on_gpu(arrays)
    shifted = torch.cat([sites.new_zeros(1), sites.flatten()])[1:].view(-1, 4)
    assert shifted.is_contiguous() and shifted.data_ptr() % 16
    engine = Engine(data, "cuda")
    assert_same_bits(engine(features, shifted).cpu().numpy(), Engine(data)(*arrays))
    with pytest.raises(SiteError, match=r"multiple of 16.*Make a copy"):  # only its library could copy
        engine(Foreign(features), Foreign(shifted))


def test_arrays_in_two_places_are_refused(data: bytes) -> None:
    arrays = frame(9)
    features, sites = on_gpu(arrays)
    with pytest.raises(SiteError, match="features lie in GPU memory, but indices in host memory"):
        Engine(data, "cuda")(features, arrays[1])
    with pytest.raises(
        SiteError, match=r"lies on cuda:0, but is read on the CPU.*features\.cpu\(\).*device='cuda:0'"
    ):
        Engine(data)(features, sites)
