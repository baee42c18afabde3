# SPDX-License-Identifier: Apache-2.0
"""`scn-fx compare` on two result files: what passes without limits of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scn_fx import Engine
from scn_fx.lidar import write_tensor
from tests.cli.conftest import invoke, invoke_json
from tests.gpu.networks import GRID, small_network
from tests.oracle.frames import random_sites

HINT = "Are both results of one frame, grid and network?"


def _save(path: Path, result: Any) -> Path:
    if isinstance(result, tuple):
        np.savez(path, features=result[0], indices=result[1])
    else:
        np.savez(path, dense=result)
    return path


def _frame(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sites = random_sites(rng, 12, GRID)
    return rng.normal(size=(len(sites), 2)).astype(np.float16), sites


def test_two_frames_are_not_one(tmp_path: Path) -> None:
    engine = Engine(small_network())
    a = _save(tmp_path / "a.npz", engine(*_frame(0)))
    b = _save(tmp_path / "b.npz", engine(*_frame(1)))
    outcome = invoke("compare", a, b, code=1).output
    assert "FAILED: cosine" in outcome and "below 0.99" in outcome
    assert HINT in outcome and "--cosine 0.9" in outcome
    found = invoke_json("compare", a, b, code=1)
    assert not found["ok"] and "0.99" in found["limits"] and found["difference"]["cosine"] < 0.99
    assert invoke("compare", a, a).output.endswith("ok\n")
    assert HINT not in invoke("compare", a, b, "--cosine", 0.9999, code=1).output


def test_two_frames_of_a_sparse_result_have_other_sites(tmp_path: Path) -> None:
    engine = Engine(small_network(sparse=True))
    first, sites = _frame(0)
    a = _save(tmp_path / "a.npz", engine(first, sites))
    for name, frame in (("fewer", (first[1:], sites[1:])), ("other", _frame(1))):
        b = _save(tmp_path / f"{name}.npz", engine(*frame))
        assert "they differ" in invoke("compare", a, b, code=1).stderr
    order = np.random.default_rng(0).permutation(len(sites))
    assert invoke_json("compare", a, _save(tmp_path / "c.npz", engine(first[order], sites[order])))["ok"]


@pytest.mark.parametrize(("factor", "ok"), [(1.05, True), (2.0, False), (0.5, False), (-1.0, False)])
def test_a_wrong_scale_is_found(tmp_path: Path, factor: float, ok: bool) -> None:
    """The cosine is 1 for every factor above zero."""
    values = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    write_tensor(tmp_path / "a.tensor", values)
    write_tensor(tmp_path / "b.tensor", (values * np.float32(factor)).astype(np.float16))
    assert invoke_json("compare", tmp_path / "a.tensor", tmp_path / "b.tensor", code=not ok)["ok"] is ok


def test_shapes_nan_and_zeros_always_fail(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    a = tmp_path / "a.npy"
    np.save(a, values)
    for name, other, where, message in (
        ("shape", values[:, :2], "stderr", "expected two arrays of one shape"),
        ("axes", values.transpose(0, 2, 3, 1), "stderr", "expected two arrays of one shape"),
        ("nan", np.where(values > 1, np.nan, values), "output", "NaN"),
        ("zero", values * 0, "output", "all zero"),
        ("text", values.astype(str), "stderr", "expected numbers"),
    ):
        np.save(tmp_path / f"{name}.npy", other)
        outcome = invoke("compare", a, tmp_path / f"{name}.npy", code=1)
        assert message in getattr(outcome, where), name


@pytest.mark.parametrize("option", ["--max-abs", "--sqnr", "--cosine"])
def test_a_limit_of_zero_is_a_limit(tmp_path: Path, option: str) -> None:
    values = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    np.savez(tmp_path / "a.npz", values)
    np.savez(tmp_path / "b.npz", values[::-1] - np.float32(3))
    pair = (tmp_path / "a.npz", tmp_path / "b.npz")
    assert "FAILED" in invoke("compare", *pair, option, 0, code=1).output
    loose = {"--max-abs": 100, "--sqnr": -100, "--cosine": -1}[option]
    assert invoke("compare", *pair, option, loose).output.endswith("ok\n")


def test_files_that_hold_two_results_or_none(tmp_path: Path) -> None:
    values, sites = np.ones((2, 3), np.float32), np.int32([[0, 0, 0, 1], [0, 0, 0, 2]])
    both = tmp_path / "both.npz"
    np.savez(both, features=values, indices=sites, dense=values)
    message = invoke("compare", both, both, code=1).stderr
    assert "a sparse result (features, indices) and a dense one" in message and f"{both}:dense" in message
    assert invoke_json("compare", f"{both}:dense", f"{both}:dense")["ok"]
    objects = tmp_path / "objects.npz"
    np.savez(objects, dense=np.array([1, None], object))
    assert "its array 'dense' cannot be read" in invoke("compare", objects, objects, code=1).stderr
    damaged = tmp_path / "damaged.npz"
    np.savez(damaged, dense=np.arange(1000, dtype=np.float32))
    data = bytearray(damaged.read_bytes())
    data[2000:2100] = bytes(100)
    damaged.write_bytes(data)
    assert "cannot be read" in invoke("compare", damaged, damaged, code=1).stderr


def test_the_help_tells_the_default() -> None:
    text = " ".join(invoke("compare", "--help").output.split())
    assert "Two result files must have a cosine of 0.99 and 17 dB SQNR" in text
