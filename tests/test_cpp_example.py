# SPDX-License-Identifier: Apache-2.0
"""The C++ example of docs/how-to/cpp.md: built on an installed library, it has the Python engine's bits."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import scn_fx
from scn_fx.lidar import write_tensor
from tests import cpp_programs
from tests.oracle.builder import add, build_onnx, convolution, node
from tests.oracle.frames import random_sites

GRID = (9, 12, 14)
HALVED = (5, 6, 7)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as the page says: a program of its own that finds the installed library."""
    prefix, build = tmp_path_factory.mktemp("prefix"), tmp_path_factory.mktemp("example")
    cmake, example = cpp_programs.find_cmake(), cpp_programs.ROOT / "examples" / "cpp"
    for command in (
        [cmake, "--install", cpp_programs.program("run_onnx").parent, "--prefix", prefix],
        [cmake, "-S", example, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release"],
        [cmake, "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    headers = {str(path.relative_to(prefix / "include")) for path in prefix.glob("include/**/*.h")}
    assert headers and all(header.startswith("scn_fx/") for header in headers)
    return build / "run_onnx"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network with a dense and a sparse output, int8 inside, and a frame of two samples."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(7)
    sites = random_sites(rng, 300, GRID, 2)
    features = rng.normal(size=(len(sites), 5)).astype(np.float16)

    def weight(out: int, channels: int) -> np.ndarray:
        return rng.normal(0, (27 * channels / 8) ** -0.5, (out, 3, 3, 3, channels)).astype(np.float16)

    same = {"input_shape": GRID, "output_shape": GRID, "padding": (1, 1, 1), "subm": True, "rulebook": "a"}
    int8 = {"precision": "int8", "output_precision": "int8", "input_range": 3.0}
    wide = {"input_shape": GRID, "output_shape": HALVED, "padding": (1, 1, 1), "stride": (2, 2, 2)}
    ranges = {"precision": "int8", "output_precision": "fp16", "ranges": (3.0, 2.5)}
    dense = {"format": "zyx", "input_spatial_shape": HALVED, "output_shape": (2, 24, *HALVED)}
    pieces = [
        convolution("first", "features", "x", weight(16, 5), **same, activation="ReLU"),
        convolution("second", "x", "y", weight(16, 16), **same, **int8, weight_ranges=[0.4] * 16),
        add("sum", "y", "x", "z", **ranges),
        convolution("third", "z", "d", weight(24, 16), **wide, **int8, weight_ranges=[0.4] * 24),
        node("ScatterDense", "dense", ["d"], "map", **dense),
    ]
    found = {name: folder / name for name in ("scn.onnx", "features.tensor", "indices.tensor")}
    build_onnx(*pieces, outputs=["map", "z"], path=found["scn.onnx"])
    write_tensor(found["features.tensor"], features)
    write_tensor(found["indices.tensor"], sites)
    return found


def fnv1a(array: np.ndarray) -> str:
    """64-bit FNV-1a of an array's bytes, in hexadecimal."""
    value = 0xCBF29CE484222325
    for byte in array.tobytes():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


def described(array: np.ndarray) -> str:
    """What the program prints about a result."""
    total = np.cumsum(array.astype(np.float64).ravel())[-1]  # one after the other, as a loop adds
    shape = ", ".join(map(str, array.shape))
    return (
        f"{array.dtype.name} [{shape}], sum {total:.9g}, {np.count_nonzero(array)} values are not zero, "
        f"FNV-1a {fnv1a(array)}"
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_frames_take_memory_for_their_results_only(files: dict[str, Path], threads: int) -> None:
    counter = cpp_programs.program("allocations")
    # four chunks of rows, so that all threads take part; the bounds of the file hold as many outputs
    done = run(counter, files["scn.onnx"], 1000, 2, 5, *GRID, threads)
    assert done.returncode == 0, done.stderr
    first, _, *steady = map(int, done.stdout.split())
    # the list of results; dims and values of the dense one; dims, values and sites of the sparse one
    assert first > 20 and steady == [6, 6, 6]


@pytest.mark.parametrize("threads", [1, 2])
def test_it_has_the_bits_of_the_python_engine(program: Path, files: dict[str, Path], threads: int) -> None:
    features, indices = (scn_fx.lidar.read_tensor(files[f"{n}.tensor"]) for n in ("features", "indices"))
    dense, (values, sites) = scn_fx.Engine(files["scn.onnx"])(features, indices)
    assert np.count_nonzero(dense) > 1000 and np.count_nonzero(values) > 1000
    done = run(program, *files.values(), threads)
    assert done.returncode == 0, done.stderr
    first, second, where, time = done.stdout.splitlines()
    assert first == described(dense)
    assert second == described(values)
    assert where == f"  on 300 sites, FNV-1a {fnv1a(sites)}"
    assert re.fullmatch(rf"300 sites in \d+\.\d\d ms, the best of 3 runs \(threads: {threads}, \w+\)", time)


def test_a_plan_runs_in_place_of_the_file(program: Path, files: dict[str, Path], tmp_path: Path) -> None:
    plan = tmp_path / "scn.plan"
    done = run(program.with_name("save_plan"), files["scn.onnx"], plan)
    digest = hashlib.sha256(files["scn.onnx"].read_bytes()).hexdigest()
    assert done.returncode == 0 and done.stdout == (
        f"saved {plan}: format 1 of version {scn_fx.__version__}, for cpu-{platform.machine()}, of an ONNX "
        f"file with SHA-256 {digest}\n"
    )
    assert f"saved {run(program.with_name('save_plan'), plan).stdout}" == done.stdout
    scn_fx.save_plan(files["scn.onnx"], tmp_path / "python.plan")
    assert plan.read_bytes() == (tmp_path / "python.plan").read_bytes()
    frame = files["features.tensor"], files["indices.tensor"]
    assert (
        run(program, plan, *frame).stdout.splitlines()[:3]
        == (run(program, *files.values()).stdout.splitlines()[:3])
    )
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.onnx", "a.plan"), "none.onnx: Cannot open the ONNX file"),
        (("scn.onnx",), "scn.onnx: Expected a plan, as save_plan() writes it; the file is none."),
        (("scn.onnx", "nowhere/a.plan"), "nowhere/a.plan: it cannot be written: No such file or directory."),
        (("scn.onnx", "folder"), "folder: it cannot be written: Is a directory. Check the folder"),
        (("scn.onnx", "a.plan", "tpu"), "The device must be cpu, cuda or cuda:N, got 'tpu'."),
        (("scn.onnx", "a.plan", "cuda"), "This build of scn-fx has no CUDA backend."),
    ],
)
def test_plans_that_cannot_be_made(
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "scn.onnx").write_bytes(files["scn.onnx"].read_bytes())
    done = run(cpp_programs.program("save_plan"), *arguments)
    assert done.returncode == 1 and message in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "scn.onnx"]


def test_float32_features_are_rounded_first(program: Path, files: dict[str, Path], tmp_path: Path) -> None:
    features = scn_fx.lidar.read_tensor(files["features.tensor"])
    write_tensor(tmp_path / "f.tensor", features.astype(np.float32))
    done = run(program, files["scn.onnx"], tmp_path / "f.tensor", files["indices.tensor"])
    assert done.stdout.splitlines()[:3] == run(program, *files.values()).stdout.splitlines()[:3] != []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scn.onnx": "none.onnx"}, "none.onnx: Cannot open the ONNX file"),
        ({"features.tensor": "none.tensor"}, "Cannot open 'none.tensor'"),
        ({"scn.onnx": "indices.tensor"}, "indices.tensor: "),
        ({"features.tensor": "scn.onnx"}, "scn.onnx: expected a .tensor file"),
        ({"features.tensor": "indices.tensor"}, "features must be float16 or float32"),
        ({"indices.tensor": "features.tensor"}, "features.tensor: expected int32 [300, 4]"),
        ({"indices.tensor": "twice.tensor"}, "duplicate"),
        ({"features.tensor": "cut.tensor"}, "cut.tensor: expected a .tensor file"),
        ({"features.tensor": "empty.tensor"}, "empty.tensor: expected a .tensor file"),
    ],
)
def test_wrong_input_is_an_error_that_says_so(
    program: Path, files: dict[str, Path], tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    sites = scn_fx.lidar.read_tensor(files["indices.tensor"])
    made = {name: tmp_path / name for name in ("twice.tensor", "cut.tensor", "empty.tensor")}
    write_tensor(made["twice.tensor"], np.concatenate([sites[:-1], sites[:1]]))
    made["cut.tensor"].write_bytes(files["features.tensor"].read_bytes()[:-1])
    made["empty.tensor"].touch()
    known: dict[str, Path] = files | made
    done = run(program, *(known.get(changed.get(n, n), Path(changed.get(n, n))) for n in files))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and message in done.stderr


def test_no_arguments_show_the_usage(program: Path) -> None:
    done = run(program)
    assert done.returncode == 2 and done.stderr.startswith("usage: run_onnx scn.onnx")
