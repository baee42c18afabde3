# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks points`: what it times, and that spconv's voxels are those of the engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.points.peer import KEPT, SpconvPoints
from benchmarks.points.run import _small_grid
from scn_fx.bench.model import find_model
from scn_fx.lidar import synthetic_points, voxelize, write_tensor


def test_all_are_timed_on_one_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    points = synthetic_points(sweeps=1)
    write_tensor(tmp_path / "points.tensor", points)
    options = ["--small", "--repeat", "2", "--threads", "1", "--workdir", str(tmp_path / "files")]
    assert main(["points", *options, "--points", str(tmp_path / "points.tensor"), "--json", str(report)]) == 0
    shown, found = capsys.readouterr().out, json.loads(report.read_text())
    frame = voxelize(points, _small_grid())
    assert found["frame"] == {"points": len(points), "voxels": len(frame), "columns": 5}
    rows = {(row["what"], row["engine"]): row["wall"] for row in found["runs"]}
    assert set(rows) == {
        (what, engine)
        for what in ("points to voxels", "points to map")
        for engine in ("scn-fx int8", "spconv")
    } | {("voxels to map", "scn-fx int8")}
    for (what, engine), times in rows.items():
        assert what in shown and f"{times['milliseconds']['median']:.2f} (" in shown
        wants = engine != "spconv" and (what, "spconv") in rows
        assert (times["speedup"] is not None) == wants
        if wants:
            peer = rows[what, "spconv"]["milliseconds"]["median"]
            assert times["speedup"]["median"] == pytest.approx(peer / times["milliseconds"]["median"])

    # The peer works on the same voxels: those that a grid of ten points makes, in spconv's order.
    files = find_model(tmp_path / "files", small=True)
    peer = SpconvPoints(files, _small_grid(), "cpu", 5, len(points))
    features, indices = (array.numpy() for array in peer.voxels(torch.from_numpy(points)))
    wanted = voxelize(points, replace(_small_grid(), max_points=KEPT), dtype=np.float32)
    order = np.lexsort(indices.T[::-1])
    assert np.array_equal(indices[order], wanted.indices)
    np.testing.assert_allclose(features[order], wanted.features, rtol=1e-5)


def test_files_of_other_columns_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tensor(tmp_path / "points.tensor", np.zeros((4, 4), np.float32))
    assert main(["points", "--small", "--points", str(tmp_path / "points.tensor")]) == 1
    assert "takes points of 5 columns" in capsys.readouterr().err
