# SPDX-License-Identifier: Apache-2.0
"""Ranges written into float16 files, against exports of calibrated graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import quant
from scn_fx.errors import CalibrationError, CompareError, NonFiniteError, OnnxError, WriteError
from scn_fx.exporting import export_onnx
from scn_fx.graph import layers
from scn_fx.quant.retrofitting import annotate
from scn_fx.quant.script import parse_precision
from scn_fx.runtime import Engine
from scn_fx.runtime.file_graph import file_graph
from tests.quant.graphs import frame, residual

FRAMES = [frame(seed) for seed in range(3)]


def model() -> torch.fx.GraphModule:
    """A graph whose weights are float16 numbers, as in a float16 checkpoint."""
    graph = residual()
    for buffer in graph.buffers():
        buffer.copy_(buffer.half().float())
    return graph


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retrofit")
    export_onnx(model(), folder / "dynamo.onnx", "dynamo")
    export_onnx(model(), folder / "torchscript.onnx", "torchscript")
    return folder


def nodes(path: Path) -> list[dict[str, Any]]:
    """Everything that the nodes of a file say; attributes have no order."""
    return [
        {
            "name": node.name,
            "op_type": node.op_type,
            "domain": node.domain,
            "input": list(node.input),
            "output": list(node.output),
            "attributes": {a.name: helper.get_attribute_value(a) for a in node.attribute},
        }
        for node in onnx.load(path).graph.node
    ]


def metadata(path: Path) -> dict[str, str]:
    found = onnx.load(path)
    return {e.key: e.value for props in (found.metadata_props, found.graph.metadata_props) for e in props}


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_retrofitted_file_is_the_export_of_the_calibrated_graph(
    files: Path, tmp_path: Path, exporter: str
) -> None:
    source, found, expected = files / f"{exporter}.onnx", tmp_path / "found.onnx", tmp_path / "expected.onnx"
    before = source.read_bytes()
    report = quant.retrofit(source, iter(FRAMES), found, progress=False)
    assert source.read_bytes() == before
    graph = model()
    result = quant.calibrate(graph, FRAMES, progress=False)
    # One exporter serves: names of values are taken from the file that was retrofitted.
    export_onnx(graph, expected, "torchscript")
    assert report.nodes == 5 and report.replaced == 0 and report.calibration.ranges == result.ranges
    for got, want in zip(nodes(found), nodes(expected), strict=True):
        assert got["name"] == want["name"] and got["attributes"] == want["attributes"]
    assert [{**n, "attributes": {}} for n in nodes(found)] == [{**n, "attributes": {}} for n in nodes(source)]
    assert metadata(found) == metadata(expected)
    assert onnx.load(found).graph.initializer == onnx.load(source).graph.initializer
    features, indices = (t.numpy() for t in frame(7))
    assert np.array_equal(Engine(found)(features, indices), Engine(expected)(features, indices))
    assert np.array_equal(Engine(found)(features, indices), graph(*frame(7)).numpy())


def test_methods_precisions_and_budgets(files: Path, tmp_path: Path) -> None:
    source, out = files / "torchscript.onnx", tmp_path / "out.onnx"
    quant.retrofit(
        source, FRAMES, out, method="max", precision=parse_precision(("extra*=fp16",)), progress=False
    )
    graph = model()
    quant.calibrate(graph, FRAMES, method="max", precision={"extra*": "fp16"}, progress=False)
    found = {layer.name: layer for layer in layers(file_graph(out).graph)}
    for layer in layers(graph):
        if layer.kind == "convolution":
            assert found[layer.name].input_dynamic_range == layer.input_dynamic_range
    kinds = {node["name"]: node["attributes"] for node in nodes(out)}
    assert kinds["extra_conv.0"]["precision"] == kinds["conv1.0.add"]["output_precision"] == b"fp16"
    report = quant.retrofit(source, FRAMES, out, method="max", budget="sqnr>=60", progress=False)
    assert report.choice is not None and report.choice.sqnr_db >= 60
    chosen = {node["name"]: node["attributes"].get("precision") for node in nodes(out)}
    assert all(chosen[name] == value.encode() for name, value in report.choice.precisions.items())
    row = next(row for row in report.to_dict()["layers"] if row["name"] in report.choice.fp16)
    assert row["precision"] == "fp16"


def test_ranges_are_replaced_only_when_asked(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    quant.retrofit(files / "torchscript.onnx", FRAMES[:1], out, method="max", progress=False)
    first = out.read_bytes()
    with pytest.raises(CalibrationError, match=r"out.onnx has ranges already, in 5 nodes.*overwrite=True"):
        quant.retrofit(out, FRAMES, out, method="max", progress=False)
    assert out.read_bytes() == first
    report = quant.retrofit(out, FRAMES, out, method="max", overwrite=True, progress=False)
    assert report.replaced == 5
    fresh = tmp_path / "fresh.onnx"
    quant.retrofit(files / "torchscript.onnx", FRAMES, fresh, method="max", progress=False)
    assert nodes(out) == nodes(fresh) and metadata(out) == metadata(fresh)


def test_what_is_refused_writes_nothing(files: Path, tmp_path: Path) -> None:
    source, out = files / "torchscript.onnx", tmp_path / "out.onnx"
    features, indices = FRAMES[0]
    for frames, options, error, match in (
        ([], {}, CalibrationError, "There are no frames"),
        ([(features[:, :2], indices)], {}, CalibrationError, "must have 3 channels"),
        ([FRAMES[1], (features * torch.inf, indices)], {}, NonFiniteError, "Frame 1"),
        (FRAMES, {"precision": "fp32"}, CalibrationError, "nodes are int8 or fp16"),
        (FRAMES, {"method": "best"}, CalibrationError, "Unknown calibration method 'best'"),
        (iter(FRAMES), {"budget": "sqnr>=20"}, CalibrationError, "read twice: pass a list"),
        (FRAMES, {"budget": "sqnr>=300"}, CalibrationError, "cannot be met"),
        (3, {}, CalibrationError, "frames must be an iterable"),
    ):
        with pytest.raises(error, match=match):
            quant.retrofit(source, frames, out, **{"progress": False, **options})
        assert not out.exists()
    with pytest.raises(WriteError):
        quant.retrofit(source, FRAMES, tmp_path / "nowhere" / "out.onnx", progress=False)
    (tmp_path / "broken.onnx").write_bytes(source.read_bytes()[:200])
    with pytest.raises(OnnxError):
        quant.retrofit(tmp_path / "broken.onnx", FRAMES, out, progress=False)


def test_values_that_are_not_the_engines_are_refused(files: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Ranges are only taken from values that the engine itself computes."""
    out = tmp_path / "out.onnx"

    def damaged(source: Any, **options: Any) -> Any:
        found = file_graph(source, **options)
        with torch.no_grad():
            found.graph.get_parameter("conv1_0_conv1_weight").mul_(2)
        return found

    monkeypatch.setattr("scn_fx.runtime.file_graph.file_graph", damaged)
    with pytest.raises(CompareError, match=r"conv1\.0\.conv1 "):
        quant.retrofit(files / "torchscript.onnx", FRAMES, out, progress=False)
    assert not out.exists()


def test_other_tools_files_keep_what_they_say(files: Path, tmp_path: Path) -> None:
    """QuantAdd, no names, foreign attributes and metadata: all stay."""
    proto = onnx.load(files / "torchscript.onnx")
    del proto.metadata_props[:]
    proto.producer_name = "another tool"
    for node in proto.graph.node:
        node.name = ""
        node.op_type = "QuantAdd" if node.op_type == "Add" else node.op_type
        node.attribute.append(helper.make_attribute("remark", "kept"))
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(proto, source)
    quant.retrofit(source, FRAMES, out, method="max", progress=False)
    found = onnx.load(out)
    assert found.producer_name == "another tool"
    assert all(a["attributes"]["remark"] == b"kept" and a["name"] == "" for a in nodes(out))
    (added,) = [node["attributes"] for node in nodes(out) if node["op_type"] == "QuantAdd"]
    assert added["input0_dynamic_range"] > 0 < added["input1_dynamic_range"] and added["precision"] == b"int8"
    assert metadata(out) == {"scn_fx.calibration.method": "max", "scn_fx.calibration.frames": "3"}
    annotated = file_graph(source)
    quant.calibrate(annotated.graph, FRAMES, method="max", progress=False)
    annotate(annotated.model, annotated.graph)
    assert annotated.model == found
