# SPDX-License-Identifier: Apache-2.0
"""A local wheel: what is in it, that it runs without a compiler, and what containers are made of."""

from __future__ import annotations

import os
import re
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from scn_fx import Engine
from tests.oracle.network import run_network
from tests.packaging import check_wheel
from tests.packaging.built import ROOT, Environment, local_wheel, run
from tests.test_project import extras


def crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def test_the_check_expects_the_bits_of_the_oracle() -> None:
    features, indices = check_wheel.frame()
    (expected,) = run_network(check_wheel.NETWORK.read_bytes(), features, indices, 2).outputs
    assert np.count_nonzero(expected.values) > 100
    assert crc(expected.values.astype(np.float16)) == check_wheel.EXPECTED
    assert crc(Engine(str(check_wheel.NETWORK))(features, indices)) == check_wheel.EXPECTED


def test_a_wheel_holds_the_package_and_nothing_else() -> None:
    with zipfile.ZipFile(local_wheel()) as wheel:
        names = wheel.namelist()
        (about,) = [name for name in names if name.endswith("METADATA")]
        metadata = wheel.read(about).decode()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"scn_fx", "quant", about.partition("/")[0]}
    (module,) = [name for name in names if name.endswith(".so")]
    assert module.startswith("scn_fx/_core.")
    kept = {"scn_fx/_core.pyi", "scn_fx/py.typed", "quant/py.typed", "scn_fx/quant/calibration.py"}
    assert kept | {"scn_fx/detection/centerpoint_synthetic.npz"} <= set(names)
    assert not [name for name in names if name.endswith((".cpp", ".h", ".cu", ".cuh", ".cmake"))]
    assert set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.M)) == set(extras())


def test_the_tag_promises_the_stable_abi_where_python_has_it() -> None:
    version = f"cp3{sys.version_info.minor}"
    expected = "cp312-abi3" if sys.version_info >= (3, 12) else f"{version}-{version}"
    assert f"-{expected}-linux" in local_wheel().name


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, and beside it a folder `numpy` with what this environment has of numpy, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    made = Environment(folder / "venv", folder)
    made.pip("install", "--no-deps", str(local_wheel()))
    (folder / "numpy").mkdir()
    for part in Path(np.__file__).parents[1].glob("numpy*"):
        (folder / "numpy" / part.name).symlink_to(part)
    return made


def with_numpy(environment: Environment) -> dict[str, str]:
    return {"PYTHONPATH": str(environment.bin.parents[1] / "numpy")}


def test_a_wheel_runs_a_network_without_a_compiler(environment: Environment) -> None:
    said = run(
        [environment.python, check_wheel.__file__], PATH=str(environment.bin), **with_numpy(environment)
    )
    assert said.strip().endswith("as expected")


def test_both_commands_of_a_wheel_say_what_they_lack(environment: Environment) -> None:
    said = run(["sh", "-c", f"{environment.bin}/scn-fx env 2>&1; test $? = 1"])
    assert said.count("\n") == 1 and "pip install 'scn-fx[cli]'" in said
    said = run(["sh", "-c", f"{environment.python} -m quant 2>&1; test $? = 1"], **with_numpy(environment))
    assert said.count("\n") == 1 and "pip install 'scn-fx[quant]'" in said


def test_what_the_container_copies_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.M) for name in line.split()}
    allowed = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.M))
    assert copied == allowed and all((ROOT / name).exists() for name in copied)
    stages = re.findall(r"^FROM .* AS (.+)$", text, re.M)
    assert stages[-1] == "cpu" and set(re.findall(r"from=([\w-]+)", text)) < set(stages)


def test_the_script_that_packagers_run_is_executable() -> None:
    text = (ROOT / "tools" / "cuda_wheels.toml").read_text(encoding="utf-8")
    for name in re.findall(r'^before-all = "(\S+)', text, re.M):
        assert os.access(ROOT / name, os.X_OK)


def test_make_says_what_it_waits_for(tmp_path: Path) -> None:
    said = run(["make", "--dry-run", "--directory", str(ROOT), "demo", f"VENV={tmp_path}/venv"])
    for words in ("Setting up", "Its CPU build is enough", "compiled here", "is ready"):
        assert re.search(rf'echo "== .*{words}', said)
