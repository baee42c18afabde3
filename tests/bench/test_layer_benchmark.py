# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks layer`: which layers and kernels are timed, what a row says, and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.layer import run
from benchmarks.layer.cases import Layer, level_of, make_layer, parse_channels
from benchmarks.layer.run import Subject, measure, peaks_of, subjects_of
from scn_fx import _core
from scn_fx.errors import ArgumentError
from scn_fx.lidar import CENTERPOINT_GRID, Frame, voxelize, write_tensor
from tests.oracle import geometry


def _points(count: int = 1500) -> np.ndarray:
    """x, y, z, intensity, time lag around one place, so that voxels have neighbours."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(count, 5)) * [1.5, 1.5, 0.5, 1, 0] + [3, 2, -1, 0, 0]).astype(np.float32)


@pytest.fixture(scope="module")
def frame() -> Frame:
    features, indices = voxelize(_points(), CENTERPOINT_GRID)
    return Frame("sweep", features, indices, CENTERPOINT_GRID, "made here")


@pytest.fixture(scope="module")
def sweep(frame: Frame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that frame."""
    folder = tmp_path_factory.mktemp("frames")
    write_tensor(folder / "sweep.features.tensor", np.asarray(frame.features, np.float16))
    write_tensor(folder / "sweep.indices.tensor", frame.indices)
    return folder


def test_every_kernel_of_every_layer(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "layers.json"
    given = ["layer", "--frames", str(sweep), "--channels", "5x16,32", "--kind", "subm", "--kind", "strided"]
    given += ["--precision", "int8,fp32", "--threads", "1,2", "--repeat", "4", "--every-kernel"]
    assert main([*given, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    report = json.loads(file.read_text())
    assert (report["frame"], report["level"], report["sites"]) == ("sweep", 0, report["voxels"])
    layers: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in report["rows"]:
        layers.setdefault((row["kind"], row["precision"], row["inputs"], row["outputs"]), []).append(row)
    assert list(layers) == [
        (kind, precision, *width)
        for kind in ("subm", "strided")
        for precision in ("int8", "fp32")
        for width in ((5, 16), (32, 32))
    ]
    for rows in layers.values():
        assert {row["threads"] for row in rows} == {1, 2}
        assert {row["kernel"] for row in rows} >= {"portable blocks"} and len(rows) % 2 == 0
        for row in rows:
            assert row["kernel"] in shown and row["pairs"] > row["rows"] > 100
            ms = row["milliseconds"]
            assert len(ms["repetitions"]) == 6  # three rounds of two
            macs = row["pairs"] * row["inputs"] * row["outputs"]
            assert row["gmacs"] == pytest.approx(macs / ms["median"] / 1e6)
            assert 0 < row["peak_share"] < 3  # of a short measurement on a busy machine


def test_by_default_the_kernel_is_the_engines(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["layer", "--frames", str(sweep), "--channels", "16", "--threads", "1", "--repeat", "1"]
    assert main([*given, "--level", "2", "--precision", "fp16"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("subm ")]
    assert len(lines) == 1 and " fp16 " in lines[0]
    assert main([*given, "--precision", "fp16,fp32", "--kernel", "portable blocks"]) == 0
    assert capsys.readouterr().out.count("portable blocks") == 2


def test_layers_have_the_maps_of_the_oracle(frame: Frame) -> None:
    sites, shape = frame.indices, frame.grid.spatial_shape
    ones, twos, threes = (1, 1, 1), (2, 2, 2), (3, 3, 3)
    for level in range(3):
        found = level_of(frame, level)
        assert found.shape == shape
        order = np.lexsort(sites.T[::-1])
        np.testing.assert_array_equal(found.sites, sites[order])
        subm = geometry.submanifold_map(found.sites, shape, threes, ones)
        below = tuple((n - 1) // 2 + 1 for n in shape)
        after, strided = geometry.strided_map(found.sites, below, threes, twos, ones, ones)
        for kind, kernel_map in (("subm", subm), ("strided", strided)):
            layer = make_layer(found, kind, "int8", (4, 8))
            assert (layer.rows, layer.pairs) == (len(kernel_map), np.count_nonzero(kernel_map >= 0))
            assert layer.macs == layer.pairs * 32
        sites, shape = after, below


@pytest.mark.parametrize(
    ("precision", "dtype"), [("int8", np.int8), ("fp16", np.float16), ("fp32", np.float32)]
)
def test_layers_stand_as_in_a_network(frame: Frame, precision: str, dtype: type) -> None:
    """Behind a ReLU, with one, and stored as the next layer of that precision reads it."""
    layer = make_layer(level_of(frame, 0), "subm", precision, (8, 8))
    values, _, _ = _core.convolve(layer.problem)
    assert values.dtype == dtype and values.min() == 0 and values.max() > 0
    if "avx2" in _core.cpu_features()["supported"]:
        names = _core.convolution_kernels(layer.problem)
        assert ("avx2 rows" in names) == (precision != "fp16")  # which int8 has for features without a sign


def _layer(**other: Any) -> Layer:
    given = {"kind": "subm", "precision": "int8", "inputs": 4, "outputs": 8, "problem": None, "rows": 10,
             "pairs": 1_000_000}  # fmt: skip
    return Layer(**(given | other))


def test_a_row_has_median_speed_and_share(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def convolve(problem: object, device: str, kernel: str, **options: int) -> tuple[None, str, list[float]]:
        calls.append((problem, kernel, options["threads"]))
        return None, f"{kernel} ran", [0.002] * options["repeat"] if len(calls) < 3 else [0.004, 0.001]

    monkeypatch.setattr(run._core, "convolve", convolve)
    subjects = [Subject(_layer(problem=n), kernel, "cpu", 2) for n, kernel in enumerate(("a", "b"))]
    one, other = measure(subjects, 5, {2: {"int8": 128e9, "fp32": None}})
    assert calls == [(0, "a", 2), (1, "b", 2)] * 3  # in turn
    assert (one.kernel, other.kernel) == ("a ran", "b ran")
    assert one.milliseconds["median"] == pytest.approx(2.0) and one.milliseconds["max"] == pytest.approx(4.0)
    assert one.gmacs == pytest.approx(16.0) and one.peak_share == pytest.approx(0.25)
    assert (
        measure([Subject(_layer(precision="fp32"), "", "cpu", 2)], 1, {2: {"fp32": None}})[0].peak_share
        is None
    )


def test_peaks_and_threads_of_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = peaks_of("cpu", (1,))[1]
    assert peaks["fp16"] == peaks["fp32"] and peaks["int8"] > 0
    info = {"devices": [{"name": "other"}, {"name": "NVIDIA H200"}]}
    monkeypatch.setattr(run._core, "cuda_info", lambda: info)
    assert peaks_of("cuda", (1,)) == {0: {}}
    assert peaks_of("cuda:1", (1,))[0]["fp16"] == 989e12
    assert [s.threads for s in subjects_of([_layer()], device="cuda", threads=(1, 2))] == [0]
    assert [s.threads for s in subjects_of([_layer()], device="cpu", threads=(1, 2))] == [1, 2]


def test_channels_are_numbers_or_pairs() -> None:
    assert parse_channels("16, 5x16,16,256") == ((16, 16), (5, 16), (256, 256))
    for text in ("", "0", "16,", "5x", "axb", "-4", "4097", "1x2x3", "99999999999"):
        with pytest.raises(ArgumentError, match="channels must be numbers from 1 to 4096"):
            parse_channels(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--channels", "16,x"], "channels must be numbers"),
        (["--precision", "int4"], "Unknown precision 'int4'"),
        (["--device", "gpu"], "device must be 'cpu', 'cuda' or 'cuda:N'"),
        (["--device", "cuda:77"], "cannot be used"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--threads", "one"], "threads must be whole numbers"),
        (["--frame", "none"], "There is no frame 'none'; there are sweep"),
        (["--kernel", "fast", "--channels", "4"], "no kernel 'fast' computes this here"),
        (["--kernel", "avx2 blocks", "--every-kernel"], "give one of them"),
        (["--frames", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_line(
    options: list[str], message: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["layer", "--frames", str(sweep), *options]) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("Error: ") and error.count("\n") == 1


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layer", "--kind", "dense"]) == 2
    assert "'subm', 'strided'" in capsys.readouterr().err
    assert main(["layer", "--level", "7"]) == 2


@pytest.mark.gpu
def test_layers_of_a_gpu(sweep: Path, tmp_path: Path) -> None:
    file = tmp_path / "layers.json"
    given = ["layer", "--device", "cuda:0", "--frames", str(sweep), "--channels", "5x16,64", "--every-kernel"]
    assert main([*given, "--repeat", "9", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    names = {row["kernel"].split()[0] for row in rows}
    assert names >= {"input-chain", "chain", "tensor-int8", "tensor-half"} and all(
        row["gmacs"] > 0 and row["threads"] == 0 for row in rows
    )
