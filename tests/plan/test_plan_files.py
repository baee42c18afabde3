# SPDX-License-Identifier: Apache-2.0
"""Plans: they run as their ONNX files do, and are refused where they do not belong."""

from __future__ import annotations

import hashlib
import platform
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given

import scn_fx
from scn_fx import _core
from scn_fx.errors import ArgumentError, OnnxError, PlanError, ScnError, WriteError
from scn_fx.files.onnx_models import read_model
from scn_fx.lidar import CENTERPOINT_GRID
from tests.fuzz.seeds import CORPUS
from tests.oracle.builder import add, build_onnx, convolution, node
from tests.oracle.compare import assert_same_bits
from tests.oracle.frames import random_sites
from tests.oracle.random_networks import RandomNetwork, networks, wide_network
from tests.plan.plan_bytes import MAGIC, sealed, text_at, xxh64

GRID = (9, 12, 14)
HERE = f"cpu-{platform.machine()}"
FORMAT = 1


def _network() -> bytes:
    """Layers of both precisions, a sparse and a dense output; the same bytes each time."""
    rng = np.random.default_rng(7)

    def weight(out: int, channels: int) -> np.ndarray:
        return rng.normal(0, (27 * channels / 8) ** -0.5, (out, 3, 3, 3, channels)).astype(np.float16)

    same = {"input_shape": GRID, "output_shape": GRID, "padding": (1, 1, 1), "subm": True, "rulebook": "a"}
    int8 = {"precision": "int8", "output_precision": "int8", "input_range": 3.0}
    dense = {"format": "zyx", "input_spatial_shape": GRID, "output_shape": (1, 24, *GRID)}
    return build_onnx(
        convolution("first", "features", "x", weight(16, 5), **same, activation="ReLU"),
        convolution("second", "x", "y", weight(16, 16), **same, **int8, weight_ranges=[0.4] * 16),
        add("sum", "y", "x", "z", precision="int8", output_precision="fp16", ranges=(3.0, 2.5)),
        convolution("third", "z", "d", weight(24, 16), **same, **int8, weight_ranges=[0.4] * 24),
        node("ScatterDense", "dense", ["d"], "map", **dense),
        outputs=["map", "z"],
    )


ONNX = _network()
SITES = random_sites(np.random.default_rng(3), 200, GRID, 1)
FEATURES = np.random.default_rng(4).normal(size=(len(SITES), 5)).astype(np.float16)
PLAN = _core.plan_bytes(ONNX)


def _assert_same(got: Any, expected: Any) -> None:
    for one, other in zip(got, expected, strict=True):
        if isinstance(one, tuple):
            _assert_same(one, other)
        else:
            assert_same_bits(one, other)


def _plain(file: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in file.items() if key != "plan"}


@given(networks(exact=False))
def test_random_networks_run_as_their_onnx_files(network: RandomNetwork) -> None:
    plan = _core.plan_bytes(network.onnx)
    frame = network.features, network.sites, network.batch_size
    one, other = _core.Engine(network.onnx), _core.Engine(plan)
    _assert_same(other.run(*frame), one.run(*frame))
    assert other.describe() == one.describe()
    assert _plain(_core.read_onnx(plan)) == _plain(_core.read_onnx(network.onnx))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize("option", ["", "fp32"])
def test_wide_layers_too(precision: str, option: str) -> None:
    for seed in range(4):
        network = wide_network(seed, precision)
        frame = network.features, network.sites, network.batch_size
        plan = _core.Engine(_core.plan_bytes(network.onnx, precision=option))
        onnx = _core.Engine(network.onnx, precision=option)
        _assert_same(plan.run(*frame), onnx.run(*frame))
        assert plan.float32 == onnx.float32 == (option == "fp32")


def test_an_engine_of_a_plan_has_all_that_one_of_the_onnx_file_has(tmp_path: Path) -> None:
    (tmp_path / "scn.onnx").write_bytes(ONNX)
    scn_fx.save_plan(tmp_path / "scn.onnx", tmp_path / "scn.plan")
    engine, other = scn_fx.Engine(tmp_path / "scn.plan", threads=1), scn_fx.Engine(ONNX, threads=1)
    _assert_same(engine(FEATURES, SITES), other(FEATURES, SITES))
    for one, two in zip(engine.trace(FEATURES, SITES), other.trace(FEATURES, SITES), strict=True):
        assert one.name == two.name
        assert_same_bits(one.values, two.values)
    assert engine.network_grid.spatial_shape == other.network_grid.spatial_shape == GRID
    assert engine.precision is None and (engine.threads, engine.ndim, engine.grid) == (1, 3, None)
    assert repr(engine) == repr(other).replace(f"{len(ONNX)} bytes", repr(str(tmp_path / "scn.plan")))
    assert len(engine.profile(FEATURES, SITES)) == len(other.profile(FEATURES, SITES))
    assert (tmp_path / "scn.plan").stat().st_size < len(ONNX)


def test_the_grid_travels_with_it() -> None:
    model = onnx.load_model_from_string(ONNX)
    for key, value in CENTERPOINT_GRID.to_text().items():
        model.metadata_props.add(key=key, value=value)
    data = model.SerializeToString()
    assert scn_fx.Engine(_core.plan_bytes(data)).grid == scn_fx.Engine(data).grid == CENTERPOINT_GRID


def test_a_plan_says_where_it_comes_from() -> None:
    assert read_model(ONNX)["plan"] is None
    said = read_model(PLAN)["plan"]
    assert said == {
        "format": FORMAT,
        "library": scn_fx.__version__,
        "kind": HERE,
        "onnx_sha256": hashlib.sha256(ONNX).hexdigest(),
        "onnx_bytes": len(ONNX),
        "precision": "",
        "spatial_shape": [0, 0, 0],
        "max_batch": 0,
        "max_sites": 0,
    }


@pytest.mark.parametrize("more", range(2, 70))
def test_the_sha_256_is_that_of_the_standard(more: int) -> None:
    """A field that ONNX does not have gives files of every length."""
    data = ONNX + b"\xfa\x7f" + bytes([more - 2]) + bytes(more - 2)
    assert read_model(_core.plan_bytes(data))["plan"]["onnx_sha256"] == hashlib.sha256(data).hexdigest()


def test_the_checksum_is_xxh64() -> None:
    # of the xxHash project's own documentation and tests
    assert [xxh64(text) for text in (b"", b"a", b"abc", b"as", b"asd", b"asdf")] == [
        0xEF46DB3751D8E999,
        0xD24EC4F1A98C6E5B,
        0x44BC2CF5AD770999,
        0x1C330FB2D66BE179,
        0x631C37CE72A97393,
        0x415872F599CEA71E,
    ]
    assert xxh64(b"Call me Ishmael. Some years ago--never mind how long precisely-") == 0x02A2E85470D6FD96
    for file in sorted((CORPUS / "onnx").glob("*.onnx"))[::5]:
        try:
            plan = _core.plan_bytes(file.read_bytes())
        except ScnError:
            continue
        assert int.from_bytes(plan[-8:], "little") == xxh64(plan[:-8])


def test_what_a_plan_holds_is_what_its_format_names() -> None:
    """If this fails, plans of before hold something else: raise kPlanFormat, and FORMAT here."""
    plan = _core.plan_bytes((CORPUS / "onnx" / "residual-int8.onnx").read_bytes())
    at, version = text_at(plan, 0)
    kind, _ = text_at(plan, 1)
    content = plan[:12] + plan[at + len(version) : kind] + plan[kind + len(HERE) : -8]
    assert content.startswith(MAGIC)
    assert hashlib.sha256(content).hexdigest()[:16] == CONTENT[FORMAT]


CONTENT = {1: "e4591522f9818cde"}


def test_any_damage_is_found() -> None:
    rng = np.random.default_rng(0)
    for at in [*range(64), *rng.integers(64, len(PLAN), 300).tolist(), *range(len(PLAN) - 8, len(PLAN))]:
        damaged = bytearray(PLAN)
        damaged[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(OnnxError if at < len(MAGIC) else PlanError, match=r"again"):
            _core.Engine(bytes(damaged))
    for size in [*range(len(MAGIC), 40), *rng.integers(40, len(PLAN), 50).tolist()]:
        with pytest.raises(PlanError, match=r"Copy it again"):
            _core.Engine(PLAN[:size])
    with pytest.raises(PlanError, match=r"says that it has \d+ bytes, the file has"):
        _core.Engine(PLAN + b"\n")


def test_another_format_is_refused_with_what_to_do() -> None:
    other = PLAN[:8] + (FORMAT + 1).to_bytes(4, "little") + PLAN[12:]
    for plan in (other, sealed(other), other[:100]):
        with pytest.raises(
            PlanError,
            match=rf"has format {FORMAT + 1}, this version of the library \(.+\) reads format {FORMAT}\.",
        ):
            _core.Engine(plan)


def _of_kind(kind: str) -> bytes:
    at, _ = text_at(PLAN, 1)
    return sealed(PLAN[: at - 4] + len(kind).to_bytes(4, "little") + kind.encode() + PLAN[at + len(HERE) :])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cuda-sm_90", rf"made for cuda-sm_90, this engine runs on {HERE}. Run it on such a GPU, or make"),
        ("cpu-s390x", rf"made for cpu-s390x, this engine runs on {HERE}. Run it on a processor of that kind"),
    ],
)
def test_another_kind_of_processor_is_refused(kind: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        scn_fx.Engine(_of_kind(kind))
    assert read_model(_of_kind(kind))["plan"]["kind"] == kind  # its owner can still look at it


def test_a_plan_of_the_cpu_is_refused_on_a_gpu() -> None:
    with pytest.raises(PlanError, match=rf"made for {HERE}, this engine runs on a GPU. Run it on the CPU"):
        _core.plan_onnx(PLAN, "cuda")


def _on_a_gpu(values: bool = True) -> bytes:
    """The plan as a GPU's: initializers have their values, nodes no prepared weights."""
    plan = _of_kind("cuda-sm_90")
    end = 0
    for tensor in onnx.load_model_from_string(ONNX).graph.initializer:
        name = tensor.name.encode()
        entry = struct.pack("<I", len(name)) + name + struct.pack("<iI", tensor.data_type, len(tensor.dims))
        entry += struct.pack(f"<{len(tensor.dims)}q", *tensor.dims)
        raw = struct.pack("<I", len(tensor.raw_data)) + tensor.raw_data
        assert plan.count(entry + b"\0") == 1 and tensor.raw_data
        at = plan.index(entry)
        made = entry + (b"\1" + raw if values else b"\0")
        plan = plan[:at] + made + plan[at + len(entry) + 1 :]
        end = max(at + len(made), end + len(made) - len(entry) - 1 if at < end else 0)
    return sealed(plan[:end] + struct.pack("<I", 0) + bytes(8))


def test_a_plan_of_a_gpu_has_the_weights_of_its_file() -> None:
    """No GPU is needed to plan what one would run."""
    assert _core.plan_onnx(_on_a_gpu(), "cuda") == _core.plan_onnx(ONNX, "cuda")
    with pytest.raises(PlanError, match=r"damaged: it holds a layer without weights"):
        _core.plan_onnx(_on_a_gpu(values=False), "cuda")


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        (
            {},
            {"precision": "fp32"},
            r"made with the precisions of the file; this engine is asked for float32",
        ),
        (
            {},
            {"spatial_shape": [9, 12, 14]},
            r"the grid of the input: none; this engine is asked for \[9, 12",
        ),
        (
            {"spatial_shape": GRID},
            {"spatial_shape": [9, 12, 15]},
            r"the grid of the input: \[9, 12, 14\]; this engine is asked for \[9, 12, 15\]",
        ),
    ],
)
def test_options_that_contradict_the_plan_are_refused(
    made: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    plan = _core.plan_bytes(ONNX, **made)
    with pytest.raises(ArgumentError, match=message + r".*Leave the option out, or make another plan"):
        scn_fx.Engine(plan, **asked)


def test_options_that_agree_may_be_repeated() -> None:
    plan = _core.plan_bytes(ONNX, precision="fp32", spatial_shape=GRID)
    for options in ({}, {"precision": "fp32"}, {"spatial_shape": GRID}):
        engine = scn_fx.Engine(plan, **options)
        assert engine.precision == "fp32"
        assert engine(FEATURES, SITES)[0].dtype == np.float32


def test_what_an_engine_refuses_gives_no_plan(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(ONNX[: len(ONNX) // 2])
    with pytest.raises(OnnxError, match=r"bad\.onnx: "):
        scn_fx.save_plan(tmp_path / "bad.onnx", tmp_path / "bad.plan")
    (tmp_path / "scn.plan").write_bytes(PLAN)
    with pytest.raises(ArgumentError, match=r"scn\.plan: A plan is made from an ONNX file, this is a plan"):
        scn_fx.save_plan(tmp_path / "scn.plan", tmp_path / "bad.plan")
    with pytest.raises(WriteError):
        scn_fx.save_plan(ONNX, tmp_path / "nowhere" / "scn.plan")
    with pytest.raises(ArgumentError, match="precision must be None"):
        scn_fx.save_plan(ONNX, tmp_path / "bad.plan", precision="int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.onnx", "scn.plan"]


def test_what_needs_an_onnx_file_says_so(tmp_path: Path) -> None:
    from scn_fx.runtime.file_graph import file_graph

    (tmp_path / "scn.plan").write_bytes(PLAN)
    for source in (PLAN, tmp_path / "scn.plan"):
        with pytest.raises(OnnxError, match=r"expected an ONNX file, got a plan, .* Name the ONNX file"):
            file_graph(source)
