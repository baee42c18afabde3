# SPDX-License-Identifier: Apache-2.0
"""`scn_fx.compare` on a small residual network: what passes, what fails, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

import scn_fx
from scn_fx.errors import CompareError, OverflowedError
from scn_fx.graph import layers
from scn_fx.runtime import Engine, Limits
from tests.quant.graphs import GraphBuilder, frame, residual

Files = Callable[[str], Path]
NODES = [
    "conv_input.0",
    "conv1.0.conv1",
    "conv1.0.conv2",
    "conv1.0.add",
    "conv1.0.add_relu",
    "extra_conv.0",
    "dense",
]


def layer_of(graph: fx.GraphModule, name: str) -> Any:
    return next(layer for layer in layers(graph) if layer.name == name)


def test_the_calibrated_graph_and_the_engine_are_bit_identical(
    calibrated: fx.GraphModule, files: Files
) -> None:
    steps: list[str] = []
    found = scn_fx.compare(calibrated, files("int8"), [frame(5), frame(6)], on_step=steps.append)
    assert found.ok and found.identical and found.check() is found and found.first_failure is None
    assert [entry.name for entry in found.nodes] == NODES
    assert [entry.op_type for entry in found.nodes].count("SparseConvolution") == 4
    assert [entry.precision for entry in found.nodes] == ["fp16", "int8", "int8", "int8", "", "int8", ""]
    assert [entry.name for entry in found.outputs] == ["output"]
    assert found.limits.identical and found.frames == 2 and found.sites == 240
    assert found.outputs[0].difference.count == 2 * 8 * 6 * 12 * 12  # type: ignore[union-attr]
    assert any("extra_conv.0" in step for step in steps)


def test_the_add_and_the_relu_behind_it_are_two_values(calibrated: fx.GraphModule, files: Files) -> None:
    found = {e.name: e.difference for e in scn_fx.compare(calibrated, files("int8"), [frame(5)]).nodes}
    total, activated = found["conv1.0.add"], found["conv1.0.add_relu"]
    assert total is not None and activated is not None
    assert total.reference_nonzero > activated.reference_nonzero > 0


def test_any_kind_of_array_and_engine_serves(calibrated: fx.GraphModule, files: Files) -> None:
    features, indices = frame(5)
    pair = (features.half().numpy(), indices.numpy())
    for engine in (str(files("int8")), files("int8").read_bytes(), Engine(files("int8"), threads=1)):
        assert scn_fx.compare(calibrated, engine, [pair]).identical


def test_outputs_alone(calibrated: fx.GraphModule, files: Files) -> None:
    found = scn_fx.compare(calibrated, files("int8"), [frame(5)], nodes=False)
    assert found.nodes == () and found.identical


def test_a_changed_range_fails_at_its_layer(calibrated: fx.GraphModule, files: Files) -> None:
    layer = layer_of(calibrated, "conv1.0.conv2")
    layer.set(input_dynamic_range=layer.input_dynamic_range * 0.5)
    calibrated.recompile()
    found = scn_fx.compare(calibrated, files("int8"), [frame(5)])
    assert not found.ok and not found.outputs[0].ok
    assert found.first_failure is not None and found.first_failure.name == "conv1.0.conv2"
    with pytest.raises(CompareError, match=r"conv1\.0\.conv2 \(SparseConvolution\).*expected the same bits"):
        found.check()
    loose = scn_fx.compare(calibrated, files("int8"), [frame(5)], limits=Limits(cosine=0.5))
    assert loose.ok and not loose.identical and loose.check() is loose


def test_an_all_zero_layer_fails_under_any_limits(calibrated: fx.GraphModule, files: Files) -> None:
    layer = layer_of(calibrated, "extra_conv.0")
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(-1.0)
    found = scn_fx.compare(calibrated, files("int8"), [frame(5)], limits=Limits())
    assert found.first_failure is not None and found.first_failure.name == "extra_conv.0"
    assert found.first_failure.failures == ("the reference is all zero",)
    assert scn_fx.compare(calibrated, files("int8"), [frame(5)], limits=Limits(), allow_zero=True).ok
    exact = scn_fx.compare(calibrated, files("int8"), [frame(5)], allow_zero=True)
    assert not exact.ok and exact.limits.identical, "the other limits stay"


def test_nan_in_a_layer_fails_under_any_limits(files: Files) -> None:
    graph = residual()
    with torch.no_grad():
        layer_of(graph, "conv1.0.conv2").weight[0, 1, 1, 1, 0] = float("nan")
    found = scn_fx.compare(graph, Engine(files("float"), precision="fp32"), [frame(5)], limits=Limits())
    assert found.first_failure is not None and found.first_failure.name == "conv1.0.conv2"
    assert "NaN" in found.first_failure.failures[0]


def test_an_overflowing_layer_is_named(calibrated: fx.GraphModule, files: Files) -> None:
    layer = layer_of(calibrated, "extra_conv.0")
    with torch.no_grad():
        layer.weight.mul_(10_000.0)
        layer.bias.fill_(65504.0)
    layer.set(weight_dynamic_ranges=[amax * 10_000.0 for amax in layer.weight_dynamic_ranges])
    calibrated.recompile()
    with pytest.raises(OverflowedError, match=r"extra_conv\.0"):
        scn_fx.compare(calibrated, files("int8"), [frame(5)])


def test_the_float_graph_against_float_engines(files: Files) -> None:
    graph = residual()
    single = scn_fx.compare(graph, Engine(files("float"), precision="fp32"), [frame(5)]).check()
    half = scn_fx.compare(graph, files("float"), [frame(5)]).check()
    assert not single.limits.identical and "float on both sides" in single.limits.reason
    first, second = (entry.outputs[0].difference for entry in (single, half))
    assert first is not None and second is not None
    assert first.sqnr_db > second.sqnr_db > 55.0, "float16 results cost more than float16 weights alone"


def test_both_sides_get_features_rounded_to_float16(files: Files) -> None:
    graph = residual()
    with torch.no_grad():
        for layer in layers(graph):
            if layer.kind == "convolution":  # as the file has them
                layer.weight.copy_(layer.weight.half())
                layer.bias.copy_(layer.bias.half())  # type: ignore[union-attr]
    found = scn_fx.compare(graph, Engine(files("float"), precision="fp32"), [frame(5)])
    difference = found.outputs[0].difference
    assert difference is not None and difference.sqnr_db > 100.0, "features in float32 would give about 70 dB"


def test_int8_against_the_float_graph_has_loose_limits(files: Files) -> None:
    found = scn_fx.compare(residual(), files("int8"), [frame(5)])
    assert found.ok and not found.identical and found.limits.reason == "int8 against float"


def test_no_voxels_are_equal_zero_maps(calibrated: fx.GraphModule, files: Files) -> None:
    empty = (np.zeros((0, 3), np.float32), np.zeros((0, 4), np.int32))
    found = scn_fx.compare(calibrated, files("int8"), [empty])
    assert found.ok and found.sites == 0


def test_a_sparse_output_is_compared_by_site(tmp_path: Path) -> None:
    from scn_fx.exporting import export_onnx

    build = GraphBuilder()
    graph = build.finish((build.conv(build.features, "only", (3, 4)), build.indices))
    export_onnx(graph, tmp_path / "sparse.onnx", "torchscript")
    found = scn_fx.compare(graph, tmp_path / "sparse.onnx", [frame(5)])
    assert found.ok and found.outputs[0].difference.count == 120 * 4  # type: ignore[union-attr]


def test_a_file_of_another_graph_is_refused(calibrated: fx.GraphModule, files: Files) -> None:
    build = GraphBuilder()
    graph = build.finish(build.dense(build.conv(build.features, "other.0", (3, 4))))
    with pytest.raises(CompareError, match=r"lacks 1 \(other\.0\) of the graph's 2 nodes and has 6"):
        scn_fx.compare(graph, files("int8"), [frame(5)])


def test_frames_that_do_not_fit_are_refused(calibrated: fx.GraphModule, files: Files) -> None:
    with pytest.raises(CompareError, match="no frames"):
        scn_fx.compare(calibrated, files("int8"), [])
    with pytest.raises(CompareError, match="expected 2 arrays"):
        scn_fx.compare(calibrated, files("int8"), [frame(5)[:1]])


def test_the_text_has_a_row_for_each_node_and_the_verdict(calibrated: fx.GraphModule, files: Files) -> None:
    text = str(scn_fx.compare(calibrated, files("int8"), [frame(5)]))
    lines = text.splitlines()
    assert len(lines) == 1 + len(NODES) + 1 + 2
    assert all(name in line and "same bits" in line for name, line in zip(NODES, lines[1:], strict=False))
    assert lines[-2].startswith("limits: the same bits (") and lines[-1].startswith("ok: 7 nodes")
    failing = str(scn_fx.compare(residual(), files("int8"), [frame(5)], limits=Limits(identical=True)))
    assert "FAILED at conv_input.0 (SparseConvolution)" in failing.splitlines()[-1]


def test_the_report_is_plain_data(calibrated: fx.GraphModule, files: Files) -> None:
    import json

    found = scn_fx.compare(calibrated, files("int8"), [frame(5)]).to_dict()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["ok"] and again["identical"] and len(again["nodes"]) == len(NODES)
    assert again["nodes"][0]["difference"]["equal_share"] == 1.0
