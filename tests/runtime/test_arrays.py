# SPDX-License-Identifier: Apache-2.0
"""Whatever callers have in hand: an engine reads it without loss, or says what it needs instead."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from scn_fx import Engine
from scn_fx.errors import ArgumentError, MemoryLimitError, OnnxError, SiteError
from scn_fx.runtime import compare, compare_arrays
from scn_fx.runtime.array_kinds import FEATURES
from scn_fx.runtime.device_arrays import capsule, lies_on_gpu
from tests.gpu.networks import GRID, small_network
from tests.oracle.frames import random_sites
from tests.oracle.network import run_network
from tests.quant.graphs import frame as graph_frame

DATA = small_network()
Array = npt.NDArray[Any]


class Foreign:
    """An array of a library that speaks DLPack and nothing else."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.__dlpack_device__()


class Old(Foreign):
    """The same, of DLPack's first protocol."""

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.tensor.__dlpack__()


@pytest.fixture(scope="module")
def frame() -> tuple[Array, Array]:
    """Features that bfloat16 and float16 hold exactly, so that every way gives one result; and sites."""
    rng = np.random.default_rng(3)
    sites = random_sites(rng, 70, GRID)
    features = rng.normal(size=(len(sites), 2)).astype(ml_dtypes.bfloat16)
    return features.astype(np.float16).astype(ml_dtypes.bfloat16).astype(np.float32), sites


@pytest.fixture(scope="module")
def expected(frame: tuple[Array, Array]) -> Array:
    return run_network(DATA, *frame, 1).dense


def t(array: Array) -> torch.Tensor:
    return torch.from_numpy(array.copy())


READ: dict[str, Callable[[Array, Array], tuple[Any, Any]]] = {
    "torch bfloat16": lambda f, i: (t(f).bfloat16(), t(i)),
    "torch bfloat16 with a gradient": lambda f, i: (t(f).bfloat16().requires_grad_(), t(i)),
    "torch bfloat16, transposed": lambda f, i: (t(f).bfloat16().t().contiguous().t(), t(i)),
    "ml_dtypes bfloat16": lambda f, i: (f.astype(ml_dtypes.bfloat16), i),
    "DLPack bfloat16": lambda f, i: (Foreign(t(f).bfloat16()), Foreign(i)),
    "old DLPack bfloat16": lambda f, i: (Old(t(f).bfloat16()), i),
    "DLPack bfloat16, transposed": lambda f, i: (Foreign(t(f).bfloat16().t().contiguous().t()), i),
    "DLPack float32": lambda f, i: (Foreign(f), Foreign(i)),
    "big-endian": lambda f, i: (f.astype(">f4"), i.astype(">i4")),
    "big-endian float16": lambda f, i: (f.astype(">f2"), i.astype("<i4")),
    "lazy negative": lambda f, i: (torch.complex(t(f) * 0, -t(f)).conj().imag, t(i)),
    "parameter": lambda f, i: (torch.nn.Parameter(t(f)), t(i)),
    "masked array without masked entries": lambda f, i: (np.ma.masked_array(f, mask=False), i),
    "Fortran order": lambda f, i: (np.asfortranarray(f), np.asfortranarray(i)),
    "negative strides": lambda f, i: (f[::-1].copy()[::-1], i[:, ::-1].copy()[:, ::-1]),
    "read-only": lambda f, i: (np.broadcast_to(f, f.shape), np.frombuffer(i.tobytes(), "<i4").reshape(-1, 4)),
}


@pytest.mark.parametrize("name", READ)
def test_arrays_that_are_read(frame: tuple[Array, Array], expected: Array, name: str) -> None:
    engine = Engine(DATA)
    arrays = READ[name](*frame)
    dense = engine(*arrays)
    assert isinstance(dense, torch.Tensor) == isinstance(arrays[0], torch.Tensor)
    np.testing.assert_array_equal(np.asarray(dense), expected)
    np.testing.assert_array_equal(engine.trace(*arrays)[-1].values, expected)
    assert engine.profile(*arrays)


def test_bfloat16_is_rounded_to_float16_once(frame: tuple[Array, Array]) -> None:
    """Halfway cases and subnormals of float16, which bfloat16 holds exactly."""
    values = np.float32([1e-7, 6e-8, 3e-8, 2.0**-25, 1.5 * 2.0**-24, 255.0, 1 / 3])
    features = np.resize(values, frame[0].shape).astype(ml_dtypes.bfloat16)
    wide = features.astype(np.float32)
    expected = run_network(DATA, wide, frame[1], 1).dense
    for given in (features, t(wide).bfloat16()):
        np.testing.assert_array_equal(np.asarray(Engine(DATA)(given, frame[1])), expected)


def fake(f: Array) -> torch.Tensor:
    with FakeTensorMode():
        return torch.zeros(f.shape)


REFUSED: dict[str, tuple[Callable[[Array], Any], str]] = {
    "float64": (lambda f: f.astype(float), r"got float64\. Convert.*features\.astype\(numpy\.float32\)"),
    "torch float64": (lambda f: t(f).double(), r"got float64\. Convert.*features\.float\(\)"),
    "big-endian float64": (lambda f: f.astype(">f8"), r"got float64"),
    "longdouble": (lambda f: f.astype(np.longdouble), r"got (float128|longdouble|float96)\. Convert"),
    "complex": (lambda f: f.astype(np.complex64), r"got complex64\. Pass an array of plain numbers"),
    "torch complex": (lambda f: t(f).cfloat(), r"got complex64\. Pass"),
    "bool": (lambda f: f > 0, r"got bool\. Convert"),
    "torch bool": (lambda f: t(f) > 0, r"got bool\. Convert"),
    "integers": (lambda f: f.astype(np.uint8), r"got uint8\. Convert"),
    "float8": (lambda f: t(f).to(torch.float8_e4m3fn), r"got float8_e4m3fn\. Convert"),
    "ml_dtypes float8": (lambda f: f.astype(ml_dtypes.float8_e5m2), r"got float8_e5m2"),
    "object": (lambda f: f.astype(object), r"got object\. Pass"),
    "text": (lambda f: f.astype(str), r"got str\d+\. Pass"),
    "dates": (lambda f: f.astype("M8[s]"), r"got datetime64"),
    "structured": (lambda f: np.zeros(len(f), [("x", "f4"), ("y", "f4")]), r"structured dtype.* x, y"),
    "masked": (lambda f: np.ma.masked_array(f, f > 1), r"masked array with masked entries.*filled"),
    "no axes": (lambda f: np.array(1, np.float32), r"\[N, C\], got float32 \[\]"),
    "torch, no axes": (lambda f: torch.tensor(1.0), r"\[N, C\], got float32 \[\]"),
    "one axis": (lambda f: f[:, 0], r"\[N, C\], got float32 \[70\]"),
    "a scalar": (lambda f: np.float32(1), r"got float32\. Try numpy\.asarray"),
    "a list": (lambda f: f.tolist(), r"got list\. Try numpy\.asarray"),
    "nothing": (lambda f: None, r"got NoneType"),
    "torch.Size": (lambda f: torch.Size([2, 3]), r"got Size"),
    "sparse": (lambda f: t(f).to_sparse(), r"sparse_coo tensor, expected a dense one"),
    "CSR": (lambda f: t(f).to_sparse_csr(), r"sparse_csr tensor.*to_dense\(\)"),
    "nested": (lambda f: torch.nested.nested_tensor([t(f)]), r"nested tensor"),
    "quantised": (lambda f: torch.quantize_per_tensor(t(f), 0.1, 0, torch.qint8), r"qint8.*dequantize\(\)"),
    "meta": (lambda f: t(f).to("meta"), r"on meta without values.*hold a frame"),
    "fake": (fake, r"FakeTensor on cpu without values"),
    "DLPack with a gradient": (lambda f: Foreign(t(f).requires_grad_()), r"\(Foreign\) cannot be read"),
    "DLPack elsewhere": (lambda f: Elsewhere(t(f)), r"DLPack type 2.*device='cuda'"),
}


class Elsewhere(Foreign):
    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


@pytest.mark.filterwarnings("ignore")  # torch calls nested, CSR and quantised tensors prototypes
@pytest.mark.parametrize("name", REFUSED)
def test_features_that_are_refused(frame: tuple[Array, Array], name: str) -> None:
    make, message = REFUSED[name]
    engine = Engine(DATA)
    for call in (engine, engine.trace, engine.profile):
        with pytest.raises(SiteError, match=f"^features .*{message}"):
            call(make(frame[0]), frame[1])


def test_tensors_inside_of_torch_func_are_refused(frame: tuple[Array, Array]) -> None:
    engine, sites = Engine(DATA), t(frame[1])
    with pytest.raises(SiteError, match=r"no plain memory.*outside of torch\.func"):
        torch.func.vmap(lambda x: engine(x, sites))(t(frame[0])[None])


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        *((d, r"indices\.astype\(numpy\.int32\)") for d in ("<i8", ">i8", "u4", "i2", "f4", "?")),
        *((d, r"indices\.int\(\)") for d in (torch.int64, torch.uint32, torch.int16, torch.float32)),
    ],
)
def test_indices_are_int32(frame: tuple[Array, Array], dtype: Any, advice: str) -> None:
    indices = frame[1].astype(dtype) if isinstance(dtype, str) else t(frame[1]).to(dtype)
    with pytest.raises(SiteError, match=rf"^indices must be int32 .*Convert them first: {advice}"):
        Engine(DATA)(frame[0], indices)


@pytest.mark.parametrize("value", [np.int64(1), np.uint8(1), torch.tensor(1), np.array(1)])
def test_whole_numbers_of_other_libraries(frame: tuple[Array, Array], expected: Array, value: Any) -> None:
    engine = Engine(DATA, threads=value, spatial_shape=[n * value for n in GRID])
    np.testing.assert_array_equal(engine(*frame, batch_size=value), expected)
    assert engine.threads == 1


NO_NUMBERS = [
    1.0, np.float32(1), True, np.True_, "1", b"1", 1j, [1], np.array([1]), torch.tensor(1.0),
    torch.tensor(True), torch.tensor(1, device="meta"),
]  # fmt: skip


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -1, 2**31, 2**70], ids=repr)
def test_sizes_are_whole_numbers_in_range(frame: tuple[Array, Array], value: Any) -> None:
    wrong = any(value is given for given in NO_NUMBERS)
    said = "must be a whole number from 1 to" if wrong else f"must be at least 1 .*got {value}"
    engine = Engine(DATA)
    for call in (engine, engine.trace, engine.profile):
        with pytest.raises(ArgumentError, match=f"batch_size {said}"):
            call(*frame, batch_size=value)
    for name in ("threads", "max_batch_size", "max_voxels"):
        with pytest.raises(ArgumentError, match=f"{name} {said}"):
            Engine(DATA, **{name: value})
    with pytest.raises(ArgumentError, match=rf"spatial_shape\[1\] {said}"):
        Engine(DATA, spatial_shape=(6, value, 12))


@pytest.mark.parametrize("shape", [5, "678", (6, 10), (1, 6, 10, 12), np.zeros((2, 3)), ()])
def test_a_grid_has_three_extents(shape: Any) -> None:
    with pytest.raises(ArgumentError, match=r"spatial_shape must be three whole numbers"):
        Engine(DATA, spatial_shape=shape)


def test_a_map_too_large_for_memory_is_refused(frame: tuple[Array, Array]) -> None:
    with pytest.raises(MemoryLimitError, match=r"dense: its dense map would take \d+ bytes.*memory_limit"):
        Engine(DATA)(*frame, batch_size=2**31 - 1)


def test_memory_that_the_system_does_not_give_is_refused(frame: tuple[Array, Array]) -> None:
    engine = Engine(DATA, memory_limit=2**50)
    expected = Engine(DATA)(*frame, batch_size=2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, limits[1]))
    try:
        with pytest.raises(MemoryLimitError, match=r"dense: there is no memory for a dense map of \d+ bytes"):
            engine(*frame, batch_size=2**23)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert np.array_equal(engine(*frame, batch_size=2), expected)


THREADS = """
import resource, sys
from scn_fx import Engine
from scn_fx.errors import ArgumentError
from tests.gpu.networks import small_network
resource.setrlimit(resource.RLIMIT_STACK, (1 << 26, 1 << 26))
resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
try:
    Engine(small_network(), threads=1000)
except ArgumentError as error:
    print(error)
assert Engine(small_network(), threads=2).threads == 2
"""


def test_threads_that_the_system_does_not_give() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "of 1000 threads could be started" in done.stdout


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_bytes_of_a_file(frame: tuple[Array, Array], expected: Array, kind: Any) -> None:
    np.testing.assert_array_equal(Engine(kind(DATA))(*frame), expected)


def test_what_is_no_file(tmp_path: Path) -> None:
    import io

    import onnx

    for model, advice in (
        (io.BytesIO(DATA), "BytesIO. Pass model.getvalue()"),
        (onnx.load_model_from_string(DATA), "ModelProto. Pass model.SerializeToString()"),
        (5, "int. Pass a path"),
        (None, "NoneType. Pass a path"),
    ):
        with pytest.raises(ArgumentError) as error:
            Engine(model)
        assert f"got {advice}" in str(error.value)
    with pytest.raises(ArgumentError, match="zero byte"):
        Engine(str(tmp_path / "a\0b.onnx"))
    strange = tmp_path / "no text \udcff.onnx"
    with pytest.raises(OnnxError, match="an ONNX file, but there is none"):
        Engine(strange)
    strange.write_bytes(DATA)
    assert Engine(strange).source == str(strange)


@pytest.mark.parametrize("precision", ["fp16", torch.float32, np.array(["fp32", "fp32"]), 32, ["fp32"]])
def test_a_precision_that_is_none(precision: Any) -> None:
    with pytest.raises(ArgumentError, match="precision must be None"):
        Engine(DATA, precision=precision)


def test_tensors_for_a_gpu_are_judged_alike() -> None:
    """Before they are exported: on the way to a GPU the same rules hold."""
    plain = torch.zeros(3, 5)
    for tensor, message in (
        (plain.double(), r"got float64\. Convert them first: features\.float\(\)"),
        (plain.to_sparse(), "sparse_coo"),
        (torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8), "dequantize"),
    ):
        with pytest.raises(SiteError, match=message):
            capsule(tensor, 0, 0, FEATURES)
    with pytest.raises(SiteError, match="without values"):
        lies_on_gpu(fake(np.zeros((3, 5))), "features")

    class Silent(Foreign):
        def __dlpack_device__(self) -> tuple[int, int]:
            raise RuntimeError("I do not know.")

    with pytest.raises(SiteError, match=r"features \(Silent\) does not say where it lies: I do not know"):
        lies_on_gpu(Silent(plain), "features")


def test_compare_reads_what_an_engine_reads(calibrated: fx.GraphModule, files: Callable[[str], Path]) -> None:
    features, indices = graph_frame(0)
    wide, sites = features.float().bfloat16().float(), indices
    ways = [
        (wide.bfloat16(), sites),
        (wide.numpy().astype(ml_dtypes.bfloat16), sites.numpy().astype(">i4")),
        (wide.numpy().astype(">f4"), sites.numpy()),
    ]
    found = compare(calibrated, files("int8"), ways)
    assert found.identical and found.frames == 3
    for frame, message in (
        ((wide.double(), sites), r"got float64"),
        ((wide, sites.long()), r"got int64\. Convert them first"),
        ((wide.to("meta"), sites), "without values"),
        ((wide.tolist(), sites), "got list"),
    ):
        with pytest.raises(SiteError, match=message):
            compare(calibrated, files("int8"), [frame])


def test_arrays_to_compare() -> None:
    values = np.float32([[1, -2], [0.5, 3]])
    assert compare_arrays(values, t(values).bfloat16()).max_abs == 0
    assert compare_arrays(values.astype(">f4"), values).identical
    assert compare_arrays(values.astype(np.longdouble), values.astype(np.longdouble)).identical
    with pytest.raises(SiteError, match="masked"):
        compare_arrays(np.ma.masked_array(values, values > 2), values)
