# SPDX-License-Identifier: Apache-2.0
"""What a CUDA engine survives, and what it says where it cannot.

Hostile files, memory that ends, forks, other processes, streams that are gone.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from scn_fx import Engine
from scn_fx.errors import ArgumentError, MemoryLimitError, OnnxError, ScnError
from tests.core import test_hostile_files as hostile
from tests.gpu.networks import GRID, small_network
from tests.oracle import builder
from tests.oracle.compare import assert_same_bits
from tests.oracle.frames import random_sites

pytestmark = pytest.mark.gpu

Arrays = tuple[np.ndarray, np.ndarray]


def frame(seed: int, count: int = 300) -> Arrays:
    rng = np.random.default_rng(seed)
    sites = random_sites(rng, count, GRID)
    return rng.normal(size=(len(sites), 2)).astype(np.float16), sites


def on_gpu(arrays: Arrays, device: str = "cuda:0") -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(arrays[0]).to(device), torch.from_numpy(arrays[1]).to(device)


def _same_as_on_the_cpu(data: bytes) -> None:
    """Both refuse a file and its frame, or give the same bits; but the CUDA backend may refuse more."""
    try:
        expected = Engine(data, threads=2)(hostile.FEATURES, hostile.SITES)
    except ScnError:
        expected = None
    try:
        got = Engine(data, "cuda")(hostile.FEATURES, hostile.SITES)
    except ScnError as error:
        assert len(str(error)) > 20
        return
    assert expected is not None
    for one, other in zip(np.atleast_1d(got), np.atleast_1d(expected), strict=True):
        assert_same_bits(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("kind", ["SUBM", "STRIDED", "TRANSPOSED"])
@pytest.mark.parametrize("extent", hostile.EXTENTS)
def test_numbers_of_a_geometry_at_the_edges_of_their_types(kind: str, extent: int) -> None:
    data = getattr(hostile, kind)
    for attribute, usual in (
        ("stride", 1), ("padding", 1), ("dilation", 1), ("kernel_size", 3), ("input_spatial_shape", 1),
        ("output_spatial_shape", 1), ("output_padding", 1),
    ):  # fmt: skip
        for axis in range(3):
            triple = [usual] * 3
            triple[axis] = extent
            _same_as_on_the_cpu(hostile._changed(data, 0, **{attribute: triple}))


def test_dense_maps_and_grids_beyond_memory() -> None:
    for shape in ((2**31 - 1, 4, *hostile.GRID), (1, 4, 2**12, 2**12, 2**12), (2**20, 4, 2**10, 2**10, 4)):
        data = hostile._changed(
            hostile.SUBM, 1, output_shape=list(shape), input_spatial_shape=list(shape[2:])
        )
        with pytest.raises((ArgumentError, OnnxError)):
            Engine(data, "cuda")
    for batch in (2**31 - 1, 2**25):
        with pytest.raises(ArgumentError):
            Engine(hostile.STRIDED, "cuda", max_batch_size=batch)
    with pytest.raises(MemoryLimitError, match=r"its weight.*memory_limit"):
        Engine(hostile.SUBM, "cuda", memory_limit=1000)
    assert Engine(hostile.SUBM, "cuda")(hostile.FEATURES, hostile.SITES).any()


def test_features_read_by_a_relu_in_float32() -> None:
    features = np.linspace(-2, 2, 64, dtype=np.float16).reshape(4, 16)
    got = Engine(hostile.RELU_OF_FEATURES, "cuda", precision="fp32")(features, hostile.SITES)
    relu, dense, _ = got
    expected = np.maximum(features, 0).astype(np.float32)
    assert relu[0].dtype == np.float32 and np.array_equal(relu[0], expected)
    b, z, y, x = hostile.SITES.T
    assert np.array_equal(dense[b, :, z, y, x], expected)


def test_a_batch_that_a_transpose_moved() -> None:
    """Another batch than the exported one runs where it still comes first, and is refused elsewhere."""

    def network(*axes: int) -> bytes:
        return builder.build_onnx(
            hostile._convolution(), hostile._scatter((4, 4, *hostile.GRID)),
            builder.node("Transpose", "t", ["d"], "e", dims=list(axes)),
        )  # fmt: skip

    sites = hostile.SITES.copy()
    sites[:2, 0] = 1
    for device in ("cpu", "cuda"):
        assert Engine(network(0, 2, 1, 3, 4), device)(hostile.FEATURES, sites, 2).shape == (2, 4, 4, 8, 8)
        with pytest.raises(ArgumentError, match=r"does not start with the batch"):
            Engine(network(1, 0, 2, 3, 4), device)(hostile.FEATURES, sites, 2)


def test_memory_of_the_device_that_ends() -> None:
    """An engine that finds no room says so, and leaves room and process as they were."""
    data, arrays = small_network(), frame(1)
    expected = Engine(data)(*arrays)
    held = []
    try:
        for exponent in range(36, 18, -1):
            try:
                while True:
                    held.append(torch.empty(1 << exponent, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError:
                pass
        for _ in range(3):
            with pytest.raises(MemoryLimitError, match=r"no more memory"):
                Engine(data, "cuda", max_voxels=2_000_000, max_batch_size=64)
    finally:
        held.clear()
        torch.cuda.empty_cache()
    assert_same_bits(Engine(data, "cuda")(*arrays), expected)


@pytest.mark.parametrize("graph", [True, False])
def test_a_frame_that_could_not_be_enqueued(graph: bool) -> None:
    """A capture that breaks in the middle of a frame: the next frames are right."""
    data, arrays = small_network(), frame(2)
    engine, expected = Engine(data, "cuda", graph=graph), Engine(data)(*arrays)
    tensors = on_gpu(arrays)
    engine(*tensors)
    engine.synchronize()
    for _ in range(3):
        capture = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            capture.capture_begin(capture_error_mode="relaxed")
            with pytest.raises(ScnError):
                engine(*arrays, stream=stream)  # host memory: waits, which no capture allows
            with pytest.raises(Exception, match=r"(?i)captur|invalid"):
                capture.capture_end()
        torch.cuda.synchronize()
        assert_same_bits(engine(*arrays), expected)
        assert_same_bits(engine(*tensors).cpu().numpy(), expected)


def _run(program: str) -> str:
    """Output of a Python program that must end by itself, without an error."""
    prepare = "import os, sys, time\nimport numpy as np\nfrom tests.gpu.test_cuda_reliability import *\n"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", prepare + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_child_of_a_fork_is_told_so() -> None:
    _run("""
        data, arrays = small_network(), frame(3)
        engine = Engine(data, "cuda")
        expected = engine(*arrays)
        def child(work):
            number = os.fork()
            if number == 0:
                try:
                    status = work()
                except BaseException as error:
                    print(error, file=sys.stderr)
                    status = 9
                os._exit(status)
            for _ in range(1200):
                done, status = os.waitpid(number, os.WNOHANG)
                if done:
                    return status
                time.sleep(0.05)
            os.kill(number, 9)
            return "hangs"
        def says(what, call):
            try:
                call()
            except ArgumentError as error:
                return 0 if what in str(error) else (print(error, file=sys.stderr), 3)[1]
            return 4
        assert child(lambda: says("fork", lambda: engine(*arrays))) == 0
        assert child(lambda: says("fork", engine.synchronize)) == 0
        assert child(lambda: says("fork", lambda: Engine(data, "cuda"))) == 0
        assert child(lambda: int(not np.array_equal(Engine(data)(*arrays), expected))) == 0
        def drop():
            global engine
            del engine
            return 0
        assert child(drop) == 0
        assert np.array_equal(engine(*arrays), expected)
    """)


def test_processes_that_share_a_gpu() -> None:
    program = """
        data = small_network()
        engine, cpu = Engine(data, "cuda"), Engine(data)
        for seed in range(400):
            arrays = frame(seed % 7, 50 * (seed % 7))
            assert np.array_equal(engine(*arrays), cpu(*arrays)), seed
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            _run(program)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed[0]


def test_a_stream_that_is_destroyed_early() -> None:
    _run("""
        import ctypes
        runtime = ctypes.CDLL(next(
            line.split()[-1] for line in open("/proc/self/maps") if "libcudart" in line
        ))
        data, arrays = small_network(), frame(4)
        expected = Engine(data)(*arrays)
        for graph in (True, False):
            engine = Engine(data, "cuda", graph=graph)
            tensors = on_gpu(arrays)
            torch.cuda.synchronize()
            for _ in range(5):
                stream = ctypes.c_void_p()
                assert runtime.cudaStreamCreate(ctypes.byref(stream)) == 0
                got = engine(*tensors, stream=stream.value)
                assert runtime.cudaStreamDestroy(stream) == 0
                engine.synchronize()
                assert np.array_equal(got.cpu().numpy(), expected)
                assert np.array_equal(engine(*arrays), expected)
                assert engine.profile(*arrays) and engine.describe()
    """)


def test_threads_take_turns() -> None:
    data = small_network()
    engine = Engine(data, "cuda")
    frames = [frame(seed, 60 * seed) for seed in range(6)]
    expected = [Engine(data)(*arrays) for arrays in frames]
    wrong: list[int] = []

    def run(first: int) -> None:
        for number in range(first, first + 100):
            at = number % len(frames)
            if not np.array_equal(engine(*frames[at]), expected[at]):
                wrong.append(number)
            engine.describe()

    threads = [threading.Thread(target=run, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_frames_of_another_device_are_refused() -> None:
    """With one GPU in the machine, the other one is the one that the engine is not told of."""
    data, arrays = small_network(), frame(5)
    count = torch.cuda.device_count()
    if count == 1:
        with pytest.raises(ArgumentError, match=r"cuda:1"):
            Engine(data, "cuda:1")
        return
    for engine_on, frame_on in ((0, 1), (1, 0)):
        engine = Engine(data, f"cuda:{engine_on}")
        expected = engine(*arrays)
        with pytest.raises(ScnError, match=rf"features lie on cuda:{frame_on}, but .* cuda:{engine_on}"):
            engine(*on_gpu(arrays, f"cuda:{frame_on}"))
        features, indices = on_gpu(arrays, f"cuda:{engine_on}")
        with pytest.raises(ScnError, match=rf"indices lie on cuda:{frame_on}"):
            engine(features, indices.to(f"cuda:{frame_on}"))
        with torch.cuda.device(frame_on):
            assert_same_bits(engine(features, indices).cpu().numpy(), expected)
        assert_same_bits(engine(*arrays), expected)


def test_a_pipe_or_a_device_is_no_model(tmp_path: Path) -> None:
    for path in ("/dev/zero", str(tmp_path)):
        with pytest.raises((OnnxError, OSError), match=path):
            Engine(path, "cuda")
