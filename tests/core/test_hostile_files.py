# SPDX-License-Identifier: Apache-2.0
"""Files made to break an engine: sizes that wrap, grids and lists without end, no file at all.

Every one is refused in our own words, in no time and without memory, or it runs.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from scn_fx import Engine
from scn_fx.errors import ArgumentError, BoundError, MemoryLimitError, OnnxError, ScnError, SiteError
from tests.oracle import builder
from tests.oracle.compare import assert_same_bits
from tests.oracle.network import run_network

GRID = (4, 8, 8)
SITES = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 1, 2, 4], [0, 3, 7, 7]], np.int32)
FEATURES = np.arange(12, dtype=np.float16).reshape(4, 3) / 8 - 0.5
INT32 = 2**31 - 1
INT64 = 2**63 - 1
EXTENTS = (2**30, 2**30 + 1, INT32, 2**31, 2**32 + 1, INT64, -1, 0, -(2**63))


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Four more gigabytes than now: enough for every refusal."""
    if "asan" in os.environ.get("LD_PRELOAD", ""):  # whose shadow memory is larger
        yield
        return
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 32), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def _weight(kernel: tuple[int, int, int] = (3, 3, 3), out: int = 4, channels: int = 3) -> np.ndarray:
    return np.full((out, *kernel, channels), 0.125, np.float16)


def _convolution(name: str = "c", source: str = "features", result: str = "y", **changed: Any) -> Any:
    said = {"input_shape": GRID, "output_shape": GRID, "padding": (1, 1, 1), "subm": True, **changed}
    return builder.convolution(name, source, result, said.pop("weight", _weight()), **said)


def _scatter(
    shape: tuple[int, ...], said: tuple[int, ...] = GRID, source: str = "y", result: str = "d"
) -> Any:
    return builder.node(
        "ScatterDense", "scatter", [source], result,
        format="zyx", input_spatial_shape=list(said), output_shape=list(shape),
    )  # fmt: skip


def _changed(data: bytes, node: int, **attributes: Any) -> bytes:
    """A file with attributes of one node set to other values."""
    model = onnx.load_model_from_string(data)
    kept = [a for a in model.graph.node[node].attribute if a.name not in attributes]
    del model.graph.node[node].attribute[:]
    model.graph.node[node].attribute.extend(kept)
    model.graph.node[node].attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    return model.SerializeToString()


def _accepts_or_refuses(data: bytes) -> None:
    """Loads a file and runs a frame; whatever is refused is refused by us."""
    for precision in (None, "fp32"):
        try:
            engine = Engine(data, threads=2, precision=precision)
            engine(FEATURES, SITES)
        except ScnError as error:
            assert len(str(error)) > 20


SUBM = builder.build_onnx(_convolution(), _scatter((1, 4, *GRID)))
STRIDED = builder.build_onnx(
    _convolution(subm=False, stride=(2, 2, 2), output_shape=(2, 4, 4)), _scatter((1, 4, 2, 4, 4), (2, 4, 4))
)
TRANSPOSED = builder.build_onnx(
    _convolution(subm=False, transposed=True, stride=(2, 2, 2), output_shape=(7, 15, 15)),
    _scatter((1, 4, 7, 15, 15), (7, 15, 15)),
)


@pytest.mark.parametrize("data", [SUBM, STRIDED, TRANSPOSED], ids=["subm", "strided", "transposed"])
@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize(
    "attribute",
    ["stride", "padding", "dilation", "kernel_size", "input_spatial_shape", "output_spatial_shape",
     "output_padding"],
)  # fmt: skip
def test_numbers_of_a_geometry_at_the_edges_of_their_types(data: bytes, attribute: str, extent: int) -> None:
    for axis in range(3):
        values = {"stride": 1, "dilation": 1, "kernel_size": 3}.get(attribute, 1)
        triple = [values] * 3
        triple[axis] = extent
        _accepts_or_refuses(_changed(data, 0, **{attribute: triple}))


@pytest.mark.parametrize(
    "shape",
    [
        (1, 4, 2**20, 2**20, 2**20),
        (2**32, 4, *GRID),
        (2**31, 4, *GRID),
        (INT32, 4, *GRID),
        (1, -1, *GRID),
        (-1, 4, *GRID),
        (INT64, 4, *GRID),
        (2**62, 4, *GRID),
        (1, 4, INT32, INT32, INT32),
    ],
    ids=repr,
)
def test_dense_maps_of_impossible_sizes(shape: tuple[int, ...]) -> None:
    data = _changed(SUBM, 1, output_shape=list(shape), input_spatial_shape=list(shape[2:]))
    with pytest.raises(ScnError, match=r"scatter"):
        Engine(data)(FEATURES, SITES)


@pytest.mark.parametrize(
    "dims",
    [
        [2**33 + 1, 2**33 - 1], [2**32, 2**32, 1024], [67109120, 1099507433488], [-1, 1024], [INT64, INT64],
        [0, 0], [1024] + [1] * 100,
    ],
    ids=lambda dims: str(dims)[:40],
)  # fmt: skip
def test_a_reshape_whose_product_wraps(dims: list[int]) -> None:
    small = builder.build_onnx(
        _convolution(), _scatter((1, 4, *GRID)), builder.node("Reshape", "r", ["d"], "e", dims=[1, 1024])
    )
    assert Engine(small)(FEATURES, SITES).shape == (1, 1024)
    with pytest.raises(OnnxError, match=r"Reshape 'r'.*cannot reshape|Reshape 'r'"):
        Engine(_changed(small, 2, dims=dims))


def test_channels_of_features_that_no_convolution_reads_yet() -> None:
    """A ScatterDense before the first convolution once took -1 channels as a size."""
    for shape in ((1, -1, *GRID), (1, 3, *GRID)):
        with pytest.raises(OnnxError, match=r"scatter.*before any convolution"):
            Engine(builder.build_onnx(_scatter(shape, source="features"), _convolution()))
    with pytest.raises(OnnxError, match=r"Relu 'r'.*before any convolution"):
        Engine(builder.build_onnx(builder.node("Relu", "r", ["features"], "r"), _convolution(source="r")))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kind", ["subm", "strided", "transposed"])
def test_a_grid_without_end_takes_no_memory(axis: int, kind: str) -> None:
    """Tables of what each coordinate reaches once took 8 GB; the sites that there are decide."""
    long = [4, 8, 8]
    long[axis] = 2**28
    kernel = {"kernel_size": [3, 3, 3]}
    said: dict[str, Any] = {"input_spatial_shape": long, **kernel}
    if kind == "subm":
        said |= {"output_spatial_shape": long}
        data = builder.build_onnx(_convolution())
    else:
        transposed = kind == "transposed"
        out = [n * 2 - 1 if transposed else (n + 1) // 2 for n in long]
        said |= {"output_spatial_shape": out}
        data = builder.build_onnx(
            _convolution(subm=False, transposed=transposed, stride=(2, 2, 2), output_shape=tuple(out))
        )
    data = _changed(data, 0, **said)
    engine = Engine(data, threads=2)
    far = SITES.copy()
    far[:, 1 + axis] += 2**28 - 8
    for sites in (SITES, far):
        values, indices = engine(FEATURES, sites)
        (expected,) = run_network(data, FEATURES, sites, 1).outputs
        assert np.array_equal(indices, expected.sites)
        assert_same_bits(values, expected.values)


def test_kernels_of_many_offsets_are_counted_before_they_are_followed() -> None:
    data = builder.build_onnx(
        _convolution(
            subm=False, weight=_weight((31, 31, 31), 1, 1), input_shape=(2**12, 2**12, 2**12),
            output_shape=(2**12, 2**12, 2**12), padding=(15, 15, 15), output_bound=10**9,
        )
    )  # fmt: skip
    rng = np.random.default_rng(0)
    sites = np.unique(np.c_[np.zeros(3000, int), rng.integers(0, 2**12, (3000, 3))], axis=0).astype(np.int32)
    engine = Engine(data, threads=2, memory_limit=1 << 28)
    with pytest.raises(MemoryLimitError, match=r"c: the cells that it reaches would take \d+ bytes"):
        engine(np.ones((len(sites), 1), np.float32), sites)
    with pytest.raises(OnnxError, match=r"32768 at most"):
        Engine(builder.build_onnx(_convolution(weight=_weight((33, 33, 33), 1, 1))))


def test_one_weight_that_a_thousand_nodes_name() -> None:
    """A file of 2 MB that would take 6 GB: each node has a weight of its own once it is read."""
    weight = np.ones((256, 3, 3, 3, 128), np.float16)
    first = [
        _convolution("c0", result="v0", weight=_weight(out=256)),
        _convolution("b", "v0", "v1", weight=weight),
    ]
    model = onnx.load_model_from_string(builder.build_onnx(*first))
    layer = model.graph.node[1]
    del model.graph.node[:]
    for number in range(1500):
        node = model.graph.node.add()
        node.CopyFrom(layer)
        node.name, node.input[0], node.output[0] = f"n{number}", "features", f"w{number}"
    model.graph.output[0].name = "w0"
    with pytest.raises(
        MemoryLimitError, match=r"SparseConvolution 'n\d+': its weight would take 3538944 bytes"
    ):
        Engine(model.SerializeToString())


def test_a_limit_of_memory_can_be_raised_and_lowered() -> None:
    wide = builder.build_onnx(_convolution(), _scatter((1, 4, 64, 512, 512), (64, 512, 512)))
    with pytest.raises(MemoryLimitError, match=r"scatter: its dense map would take 134217728 bytes.*1048576"):
        Engine(wide, memory_limit=1 << 20)
    assert Engine(wide, memory_limit=1 << 28)(FEATURES, SITES).shape == (1, 4, 64, 512, 512)
    for wrong in (0, -1, 2**63, 1.5, "many"):
        with pytest.raises(ArgumentError, match=r"memory_limit"):
            Engine(wide, memory_limit=wrong)  # type: ignore[arg-type]


def test_a_refused_frame_leaves_the_engine_as_it_was() -> None:
    engine = Engine(STRIDED, threads=2, memory_limit=1 << 24)
    expected = engine(FEATURES, SITES)
    with pytest.raises(MemoryLimitError):
        engine(FEATURES, SITES, batch_size=2**24)
    assert_same_bits(engine(FEATURES, SITES), expected)


@pytest.mark.parametrize("batch", [INT32, 2**30, 2**24])
def test_batches_at_the_edge_of_their_type(batch: int) -> None:
    sparse = Engine(builder.build_onnx(_convolution()), threads=2)
    last = SITES.copy()
    last[:, 0] = batch - 1
    assert_same_bits(sparse(FEATURES, last, batch_size=batch)[0], sparse(FEATURES, SITES, batch_size=1)[0])
    last[0, 0] = INT32
    with pytest.raises(SiteError, match=r"outside the grid"):
        sparse(FEATURES, last)
    with pytest.raises(SiteError, match=r"outside the grid"):
        sparse(FEATURES, -SITES - 1)


def test_a_bound_beyond_32_bits() -> None:
    engine = Engine(_changed(STRIDED, 0, output_bound=INT64))
    assert_same_bits(engine(FEATURES, SITES), Engine(STRIDED)(FEATURES, SITES))
    with pytest.raises(BoundError):
        Engine(_changed(STRIDED, 0, output_bound=1))(FEATURES, SITES)


def _message(field: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while True:
        length += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
        if not size:
            return bytes([field << 3 | 2]) + length + content


def _model(graph: bytes) -> bytes:
    return b"\x08\x08" + _message(7, graph)


@pytest.mark.parametrize(
    "graph",
    [
        b"\x0a\x00" * 10**6,  # nodes
        _message(1, b"\x0a\x00" * 10**6),  # inputs of a node
        _message(1, b"\x2a\x00" * 10**6),  # attributes
        _message(1, _message(5, _message(8, b"\x01" * 10**6))),  # integers of an attribute
        _message(1, _message(5, b"\x40\x01" * 10**6)),  # the same one by one
        _message(1, _message(5, b"\x4a\x00" * 10**6)),  # strings
        _message(5, _message(1, b"\x01" * 10**6)),  # dimensions of a tensor
        b"\x5a\x00" * 10**6,  # inputs
        b"\x62\x00" * 10**6,  # outputs
    ],
    ids=["nodes", "node inputs", "attributes", "packed ints", "ints", "strings", "dims", "inputs", "outputs"],
)
def test_lists_without_end(graph: bytes) -> None:
    with pytest.raises(OnnxError, match=r"more than \d+ .*far more than a network has"):
        Engine(_model(graph))


@pytest.mark.parametrize(
    "data",
    [
        b"\x08" + b"\xff" * 10 + b"\x01",  # a varint of more than 64 bits
        b"\x08" + b"\xff" * 9 + b"\x7f",  # whose last byte does not fit
        b"\xf8\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01",  # a field number of 61 bits
        b"\x00\x01",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of 64 bits
    ],
)
def test_numbers_of_the_wire_format_out_of_range(data: bytes) -> None:
    with pytest.raises(OnnxError, match=r"Not a readable ONNX model|Not an ONNX model"):
        Engine(data)


@pytest.mark.parametrize("depth", [3, 200])
def test_chains_of_many_nodes_load_in_no_time(depth: int) -> None:
    """Work that grows with the square of the nodes once took minutes for a small file."""
    relus = [builder.node("Relu", f"r{i}", [f"v{i}"], f"v{i + 1}") for i in range(20 * depth)]
    data = builder.build_onnx(_convolution(result="v0"), *relus)
    assert len(Engine(data)(FEATURES, SITES)[0]) == 4


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/urandom", "/proc/self/mem", "/"])
def test_things_that_are_no_file(path: str) -> None:
    with pytest.raises((OnnxError, OSError), match=path):
        Engine(path)


def test_pipes_sockets_and_files_without_end(tmp_path: Path) -> None:
    pipe, listening, sparse = tmp_path / "pipe", tmp_path / "socket", tmp_path / "sparse.onnx"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        for path in (pipe, listening, tmp_path):
            with pytest.raises((OnnxError, OSError), match=path.name):
                Engine(path)
    with sparse.open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(OnnxError, match=r"sparse\.onnx.*at most 2 GiB"):
        Engine(sparse)


LOCALE = """
import locale, sys
from scn_fx import Engine
from scn_fx.errors import OnnxError
from tests.core.test_nan import _int8_file
set_to = None
for name in ("de_DE.UTF-8", "de_DE", "fr_FR.UTF-8", "ps_AF", "de_DE.utf8"):
    try:
        set_to = locale.setlocale(locale.LC_ALL, name)
        break
    except locale.Error:
        pass
try:
    Engine(_int8_file(1.5e-35, 1.0))
except OnnxError as error:
    assert "1.5e-35" in str(error), str(error)
    print(set_to)
else:
    sys.exit("taken")
"""


def test_numbers_in_messages_have_one_form_in_every_locale() -> None:
    subprocess.run([sys.executable, "-c", LOCALE], check=True, timeout=60)


RELU_OF_FEATURES = builder.build_onnx(
    _convolution(weight=_weight(channels=16)),
    builder.node("Relu", "r", ["features"], "r"),
    builder.node(
        "ScatterDense", "scatter", ["r"], "d",
        format="zyx", input_spatial_shape=list(GRID), output_shape=[1, 16, *GRID],
    ),
    outputs=["r", "d", "y"],
)  # fmt: skip


@pytest.mark.parametrize("channels", [16])
def test_features_read_by_a_relu_in_float32(channels: int) -> None:
    """They were stored as float16 and read as float32."""
    features = np.linspace(-2, 2, 4 * channels, dtype=np.float16).reshape(4, channels)
    expected = np.maximum(features, 0).astype(np.float32)
    relu, dense, _ = Engine(RELU_OF_FEATURES, precision="fp32")(features, SITES)
    assert relu[0].dtype == np.float32 and np.array_equal(relu[0], expected)
    b, z, y, x = SITES.T
    assert dense.dtype == np.float32 and np.array_equal(dense[b, :, z, y, x], expected)
    traced = {
        node.name: node.values for node in Engine(RELU_OF_FEATURES, precision="fp32").trace(features, SITES)
    }
    assert np.array_equal(traced["r"], expected)


SCRIBBLE = """
import threading, time
import numpy as np
from scn_fx import Engine
from scn_fx.errors import ScnError
from tests.core.test_hostile_files import STRIDED, TRANSPOSED, SUBM, GRID

rng = np.random.default_rng(0)
cells = rng.permutation(np.prod(GRID))[:200]
good = np.stack([0 * cells, *np.unravel_index(cells, GRID)], 1).astype(np.int32)
sites, features = good.copy(), rng.normal(size=(200, 3)).astype(np.float32)
stop = False
def scribble():
    wild = rng.integers(-2**31, 2**31, good.shape)
    while not stop:
        sites[:] = wild
        features[:] = np.nan
        sites[:] = good
        features[:] = 1.0
thread = threading.Thread(target=scribble, daemon=True)
thread.start()
counts = {}
for engine in (Engine(data, threads=2) for data in (STRIDED, TRANSPOSED, SUBM)):
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        try:
            result = engine(features, sites)
            assert np.isfinite(result.astype(np.float32)).all()
            counts["taken"] = counts.get("taken", 0) + 1
        except ScnError as error:
            counts[type(error).__name__] = counts.get(type(error).__name__, 0) + 1
stop = True
thread.join()
features[:], sites[:] = 1.0, good
assert len(counts) > 1, counts
for data in (STRIDED, TRANSPOSED, SUBM):
    engine = Engine(data, threads=2)
    assert engine(features, sites).tobytes() == Engine(data)(features, sites).tobytes()
"""


def test_arrays_that_change_during_a_call() -> None:
    """What was checked is what is used: an error or a result, never a crash and never NaN in a result."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", SCRIBBLE], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.returncode}\n{done.stderr}"
