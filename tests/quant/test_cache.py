# SPDX-License-Identifier: Apache-2.0
"""The calibration cache: a lossless round trip, and refusal of everything that is not this graph's cache."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import quant
from scn_fx.errors import CalibrationError, WriteError
from scn_fx.graph import fingerprint, set_metadata
from scn_fx.input_grid import graph_grid
from scn_fx.lidar import VoxelGrid
from tests.quant.graphs import frame, residual

FRAMES = [frame(seed) for seed in range(2)]


def state(graph: torch.fx.GraphModule) -> dict[str, Any]:
    """Everything that calibration puts into a graph."""
    kept = ("range", "precision")
    nodes = {
        str(n.kwargs["name"]): {k: v for k, v in n.kwargs.items() if any(word in k for word in kept)}
        for n in graph.graph.nodes
        if "name" in n.kwargs
    }
    return {"nodes": nodes, "calibration": graph.meta["scn_fx"]["calibration"]}


@pytest.fixture(scope="module")
def calibrated() -> torch.fx.GraphModule:
    graph = residual()
    quant.calibrate(graph, FRAMES, method="entropy", precision={"conv1.0.conv2": "fp16"})
    return graph


@pytest.fixture
def cache(calibrated: torch.fx.GraphModule, tmp_path: Path) -> Path:
    return quant.save_cache(calibrated, tmp_path / "cache.json")


def test_round_trip_is_exact(calibrated: torch.fx.GraphModule, cache: Path) -> None:
    graph = residual()
    summary = quant.load_cache(graph, cache)
    assert state(graph) == state(calibrated)
    assert (summary["method"], summary["frames"]) == ("entropy", 2)
    assert summary["tool"].startswith("scn-fx")
    for tensors in FRAMES:
        assert torch.equal(graph(*tensors), calibrated(*tensors))
    assert [p.name for p in cache.parent.iterdir()] == ["cache.json"]  # no partial file is left


def test_awkward_float32_values_survive(calibrated: torch.fx.GraphModule, tmp_path: Path) -> None:
    graph = residual()
    quant.load_cache(graph, quant.save_cache(calibrated, tmp_path / "a.json"))
    awkward = [float(np.float32(v)) for v in (0.1, 1 / 3, 1e-20, 1.2676505e30)]
    conv = next(n for n in graph.graph.nodes if n.kwargs.get("name") == "conv1.0.conv1")
    conv.kwargs = {**conv.kwargs, "weight_dynamic_ranges": awkward}
    other = residual()
    quant.load_cache(other, quant.save_cache(graph, tmp_path / "b.json"))
    assert state(other)["nodes"]["conv1.0.conv1"]["weight_dynamic_ranges"] == awkward


def test_the_file_says_what_it_is(calibrated: torch.fx.GraphModule, cache: Path) -> None:
    content = json.loads(cache.read_text())
    assert (content["format"], content["version"]) == ("scn-fx calibration cache", 2)
    assert content["fingerprint"] == fingerprint(calibrated) == fingerprint(residual())
    assert list(content["layers"]) == [
        "conv_input.0", "conv1.0.conv1", "conv1.0.conv2", "conv1.0.add", "extra_conv.0",
    ]  # fmt: skip


def test_loading_needs_no_modelopt(cache: Path) -> None:
    code = (
        "import sys; sys.modules['modelopt'] = None\n"
        "import quant, tests.quant.graphs as g\n"
        f"kept = quant.load_cache(g.residual(), {str(cache)!r})\n"
        "print(kept['frames'], 'scn_fx.quant.histogram' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "False"], done.stderr


def test_a_failing_disk_leaves_the_old_cache(
    calibrated: torch.fx.GraphModule, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"cache.json cannot be written: No space left.*Free space"):
        quant.save_cache(calibrated, cache)
    assert cache.read_bytes() == before
    assert [p.name for p in cache.parent.iterdir()] == ["cache.json"]


def test_an_uncalibrated_graph_has_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="not calibrated"):
        quant.save_cache(residual(), tmp_path / "cache.json")
    assert list(tmp_path.iterdir()) == []


def refused(path: Path, match: str, graph: torch.fx.GraphModule | None = None) -> None:
    graph = graph or residual()
    before = state(graph)
    with pytest.raises(CalibrationError, match=match):
        quant.load_cache(graph, path)
    assert state(graph) == before


def test_a_cache_of_other_weights_or_another_structure_is_refused(cache: Path) -> None:
    refused(cache, "belongs to another graph: its fingerprint is .* calibrate anew", residual(seed=1))
    refused(cache, "belongs to another graph", residual(channels=8))


def test_every_truncation_is_refused(cache: Path) -> None:
    text = cache.read_text().rstrip()
    for length in (0, 1, len(text) // 2, len(text) - 1):
        cache.write_text(text[:length])
        refused(cache, "no complete JSON file .* truncated")


def test_a_missing_or_binary_file(cache: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nothing.json", "expected a calibration cache, but there is none")
    cache.write_bytes(b"\x80\x81\x00")
    refused(cache, "no complete JSON file")


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def with_value(value: Any, *path: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


def of_an_earlier_version(content: dict[str, Any]) -> None:
    del content["fingerprints"]
    content["fingerprint"] = "0" * 64


CONV = ("layers", "conv1.0.conv1")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (with_value("other", "format"), "not a scn-fx calibration cache"),
        (with_value(3, "version"), "format version 3; this version of scn-fx reads 1 and 2"),
        (without("frames"), "lacks frames"),
        (with_value("3", "frames"), "lacks frames"),
        (with_value([], "layers"), "lacks layers"),
        (of_an_earlier_version, "written by another version of scn-fx.*fingerprints of graphs are others"),
        (without(*CONV), "lacks 1 of 5 layers: conv1.0.conv1"),
        (
            without(*CONV, "input_dynamic_range"),
            "expected input_dynamic_range and weight_dynamic_ranges, got only",
        ),
        (
            without("layers", "conv1.0.add", "input1_dynamic_range"),
            "conv1.0.add: expected input0_dynamic_range and",
        ),
        (
            with_value([1.0], *CONV, "weight_dynamic_ranges"),
            "conv1.0.conv1: expected 4 weight_dynamic_ranges, got 1",
        ),
        (with_value(1.0, *CONV, "weight_dynamic_ranges"), "expected 4 weight_dynamic_ranges, got float"),
        (with_value(0.1, *CONV, "input_dynamic_range"), "0.1 is not a float32 value"),
        (with_value(0.0, *CONV, "input_dynamic_range"), "must be positive"),
        (with_value(-1.0, *CONV, "input_dynamic_range"), "must be positive"),
        (with_value(None, *CONV, "weight_dynamic_ranges", 0), "expected a finite number, got None"),
        (with_value(float("nan"), *CONV, "input_dynamic_range"), "NaN is no number of JSON"),
        (with_value("int4", *CONV, "precision"), "precision must be one of fp32, fp16, int8, got 'int4'"),
        (without(*CONV, "output_precision"), "output_precision must be one of"),
        (with_value("fp32", *CONV, "precision"), "cannot be mixed"),
    ],
)
def test_incomplete_and_edited_files_are_refused(
    cache: Path, change: Callable[[dict[str, Any]], None], match: str
) -> None:
    content = json.loads(cache.read_text())
    change(content)
    cache.write_text(json.dumps(content))
    refused(cache, match)


def test_an_int8_layer_without_ranges_is_refused(cache: Path) -> None:
    content = json.loads(cache.read_text())
    for key in ("input_dynamic_range", "weight_dynamic_ranges"):
        del content["layers"]["conv1.0.conv1"][key]
    cache.write_text(json.dumps(content))
    refused(cache, "conv1.0.conv1: int8 without ranges")


# Where caches and graphs come from


def of(checkpoint: str | None, model: str = "centerpoint", **more: Any) -> dict[str, Any]:
    """Provenance as `quant.models.load_graph` writes it."""
    file = None if checkpoint is None else {"file": f"{checkpoint}.pth", "sha256": checkpoint * 64}
    return {"model": model, "checkpoint": file, **more}


GRID = {"point_range": [-0.45, -0.45, -0.5, 0.45, 0.45, 0.5], "voxel_size": [0.075, 0.075, 0.2]}


@pytest.mark.parametrize(
    ("made", "loaded", "match"),
    [
        (of("a"), of(None), r"made with the checkpoint a.pth \(SHA-256 a{12}.*\); this graph was loaded "
                            "without a checkpoint. Give that checkpoint .*--checkpoint"),
        (of(None), of("b"), r"made without a checkpoint; this graph was loaded with the checkpoint b.pth"),
        (of("a"), of("b"), r"with the checkpoint a.pth .* with the checkpoint b.pth .* calibrate anew"),
        (of("a"), of("a", "second"), "with the model 'centerpoint'; this graph has 'second'"),
        (of("a", grid=GRID), of("a", grid={**GRID, "voxel_size": [0.1, 0.1, 0.2]}),
         r"the grid point range .*0\.075"),
        (of("a"), of("a"), "Structure, geometry and weights"),
        ({}, of("a"), "Structure, geometry and weights"),
    ],
)  # fmt: skip
def test_the_cause_of_another_fingerprint_is_named(
    made: dict[str, Any], loaded: dict[str, Any], match: str, tmp_path: Path
) -> None:
    graph, other = residual(), residual(seed=1)
    quant.calibrate(graph, FRAMES)
    set_metadata(graph, **made)
    path = quant.save_cache(graph, tmp_path / "c.json")
    content = json.loads(path.read_text())
    assert {key: content[key] for key in ("model", "checkpoint", "grid") if key in content} == made
    set_metadata(other, **loaded)
    refused(path, match, other)


def test_a_cache_of_another_voxel_grid_is_refused_though_the_graph_is_the_same(tmp_path: Path) -> None:
    graph, other = residual(), residual()
    quant.calibrate(graph, FRAMES)
    set_metadata(graph, grid={name: tuple(value) for name, value in GRID.items()})
    path = quant.save_cache(graph, tmp_path / "c.json")
    unknowing = residual()
    quant.load_cache(unknowing, path)
    assert graph_grid(unknowing) == VoxelGrid.from_dict(GRID)
    set_metadata(other, grid=GRID)
    quant.load_cache(other, path)
    set_metadata(other, grid={**GRID, "point_range": [-0.35, -0.45, -0.5, 0.55, 0.45, 0.5]})
    refused(path, r"calibrated on the grid point range \[-0.45.*this graph has point range \[-0.35", other)


def test_a_damaged_grid_in_a_cache_is_refused(cache: Path) -> None:
    content = json.loads(cache.read_text())
    cache.write_text(json.dumps({**content, "grid": {"point_range": [0, 1]}}))
    refused(cache, "its grid is damaged")


def test_caches_without_provenance_are_read(cache: Path) -> None:
    content = json.loads(cache.read_text())
    assert not {"model", "checkpoint", "grid"} & set(content)
    graph = residual()
    set_metadata(graph, **of("a"))
    quant.load_cache(graph, cache)
