# SPDX-License-Identifier: Apache-2.0
"""quant.calibrate on small graphs: ranges, their sharing, what it leaves in the graph, and bad input."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import quant
from scn_fx.errors import CalibrationError, NonFiniteError, OverflowedError, SiteError, WriteError
from scn_fx.graph import layers
from scn_fx.quant import progress
from scn_fx.quant.interpreter import FloatInterpreter
from tests.quant.graphs import GraphBuilder, frame, residual

FRAMES = [frame(seed) for seed in range(3)]


def float_values(graph: torch.fx.GraphModule, tensors: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray]:
    """Every layer's float32 value by an independent computation: loops over sites and offsets."""
    features, indices = (t.numpy() for t in tensors)
    rows = {tuple(index): row for row, index in enumerate(indices.tolist())}
    values = {"features": features.astype(np.float16).astype(np.float64)}
    for layer in layers(graph):
        if layer.kind in ("scatter_dense", "reshape", "transpose"):
            continue
        operands = [values[n.kwargs.get("name", n.name)] for n in layer.inputs]
        if layer.kind == "convolution":
            weight = layer.weight.numpy().astype(np.float64)
            result = np.tile(layer.bias.numpy().astype(np.float64), (len(indices), 1))
            for offset in np.ndindex(*weight.shape[1:4]):
                shift = np.array(offset) - np.array(weight.shape[1:4]) // 2
                for m, (batch, *site) in enumerate(indices.tolist()):
                    row = rows.get((batch, *(np.array(site) + shift).tolist()))
                    if row is not None:
                        result[m] += weight[:, offset[0], offset[1], offset[2]] @ operands[0][row]
        else:
            result = operands[0] if layer.kind == "relu" else operands[0] + operands[1]
        if layer.kind == "relu" or layer.activation == "ReLU":
            result = np.maximum(result, 0)
        values[layer.name] = result
    return values


def test_max_takes_the_largest_magnitudes_of_all_frames() -> None:
    graph = residual()
    result = quant.calibrate(graph, FRAMES, method="max", consumers="ignore")
    runs = [float_values(graph, tensors) for tensors in FRAMES]
    largest = {name: max(float(np.abs(run[name]).max()) for run in runs) for name in runs[0]}
    expected = {
        "conv_input.0": ("features",),
        "conv1.0.conv1": ("conv_input.0",),
        "conv1.0.conv2": ("conv1.0.conv1",),
        "conv1.0.add": ("conv1.0.conv2", "conv_input.0"),
        "extra_conv.0": ("conv1.0.add",),
    }
    for name, sources in expected.items():
        np.testing.assert_allclose(result.ranges[name].inputs, [largest[s] for s in sources], rtol=1e-5)
        assert result.largest[name] == result.ranges[name].inputs
    # The features are rounded to float16 and then only compared: exact.
    assert result.ranges["conv_input.0"].inputs == (largest["features"],)


def test_weights_can_take_the_maximum_of_their_float16_values_per_output_channel() -> None:
    graph = residual()
    for options in ({"method": "max"}, {"method": "mse", "weights": "max"}):
        quant.calibrate(graph, FRAMES, **options)
        for layer in layers(graph):
            if layer.kind == "convolution":
                rounded = layer.weight.numpy().astype(np.float16).astype(np.float32)
                exact = np.abs(rounded).max(axis=(1, 2, 3, 4))
                assert layer.weight_dynamic_ranges == exact.tolist()


@pytest.mark.parametrize("method", quant.METHODS)
def test_every_method_gives_positive_float32_ranges_within_the_largest_value(method: str) -> None:
    graph = residual()
    result = quant.calibrate(graph, FRAMES, method=method)
    assert (result.method, result.frames) == (method, 3)
    for name, ranges in result.ranges.items():
        for amax, largest in zip(ranges.inputs, result.largest[name], strict=True):
            assert 0 < amax <= largest
            assert float(np.float32(amax)) == amax
    assert graph.meta["scn_fx"]["calibration"] == {"method": method, "frames": 3}


def test_consumers_of_one_value_share_its_range() -> None:
    build = GraphBuilder()
    x = build.conv(build.features, "input", (3, 4), relu=False)
    y = build.relu(x, "relu")
    a, b = build.conv(y, "left", (4, 4)), build.conv(y, "right", (4, 4))
    build_output = build.add(build.add(a, b, "sum"), x, "residual")
    graph = build.finish(build.dense(build_output))
    quant.calibrate(graph, FRAMES, method="mse")
    by_name = {layer.name: layer for layer in layers(graph)}
    assert by_name["left"].input_dynamic_range == by_name["right"].input_dynamic_range
    assert (
        by_name["residual"].input1_dynamic_range != by_name["left"].input_dynamic_range
    )  # x against relu(x)
    assert by_name["sum"].input0_dynamic_range != by_name["sum"].input1_dynamic_range


def test_the_graph_holds_the_result_and_runs_integer_arithmetic() -> None:
    graph = residual()
    before = graph(*FRAMES[0])
    result = quant.calibrate(graph, FRAMES, method="max")
    for layer in layers(graph):
        if layer.kind == "convolution":
            assert layer.input_dynamic_range == result.ranges[layer.name].inputs[0]
            assert tuple(layer.weight_dynamic_ranges) == result.ranges[layer.name].weight
        if layer.kind in ("convolution", "add"):
            assert layer.precision == result.precisions[layer.name]
            assert layer.output_precision == result.output_precisions[layer.name]
    after = graph(*FRAMES[0])
    assert after.dtype == torch.float16 and before.dtype == torch.float32
    assert not torch.equal(after.float(), before)
    cosine = torch.nn.functional.cosine_similarity(after.float().flatten(), before.flatten(), dim=0)
    assert cosine > 0.998
    # One int8 layer of the running graph, recomputed with the rules of the number format.
    layer = next(layer for layer in layers(graph) if layer.name == "conv1.0.conv1")
    seen: dict[str, torch.Tensor] = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> torch.Tensor:
            seen[n.kwargs.get("name", n.name)] = value = super().run_node(n)
            return value

    Watch(graph).run(*FRAMES[0])
    x = seen["conv_input.0"].numpy()
    assert x.dtype == np.float32  # unrounded, since every consumer is int8
    ranges = np.array(layer.weight_dynamic_ranges, np.float32)
    qx = np.clip(np.rint(x * (np.float32(127) / np.float32(layer.input_dynamic_range))), -128, 127)
    weight = layer.weight.numpy().astype(np.float16).astype(np.float32)
    qw = np.clip(np.rint(weight * (np.float32(127) / ranges)[:, None, None, None, None]), -128, 127)
    kernel_map = seen["subm333"].numpy()
    acc = np.zeros((len(x), len(ranges)))
    for k, w in enumerate(qw.reshape(len(ranges), -1, x.shape[1]).transpose(1, 0, 2)):
        rows = kernel_map[:, k]
        acc[rows >= 0] += qx[rows[rows >= 0]] @ w.T
    scale = np.float32(layer.input_dynamic_range) / np.float32(127) * (ranges / np.float32(127))
    y = acc * scale.astype(np.float64) + layer.bias.numpy().astype(np.float16).astype(np.float64)
    np.testing.assert_array_equal(np.maximum(y.astype(np.float32), 0), seen["conv1.0.conv1"].numpy())


def test_a_calibrated_graph_calibrates_to_the_same_ranges_again() -> None:
    graph = residual()
    first = quant.calibrate(graph, FRAMES)
    again = quant.calibrate(graph, iter(FRAMES))
    assert (first.ranges, first.precisions) == (again.ranges, again.precisions)


def test_the_float_interpreter_ignores_precisions() -> None:
    graph = residual()
    expected = graph(*FRAMES[0])
    quant.calibrate(graph, FRAMES)
    names = []
    assert torch.equal(FloatInterpreter(graph, lambda n, _: names.append(n.name)).run(*FRAMES[0]), expected)
    assert "features" in names and "indices" not in names


def test_numpy_frames_and_float16_features_serve_too() -> None:
    graph, other = residual(), residual()
    first = quant.calibrate(graph, FRAMES, method="max")
    halves = [(f.half().numpy(), i.numpy()) for f, i in FRAMES]
    assert quant.calibrate(other, halves, method="max").ranges == first.ranges


@pytest.mark.filterwarnings("error::UserWarning:torch")
def test_numpy_arrays_of_any_byte_order_and_stride_serve(recwarn: pytest.WarningsRecorder) -> None:
    plain = [(features.numpy(), indices.numpy()) for features, indices in FRAMES]
    kinds = [
        [(a.astype(">f4"), b.astype(">i4")) for a, b in plain],
        [(a[::-1], b[::-1]) for a, b in plain],
        [(np.frombuffer(a.tobytes(), np.float32).reshape(a.shape), b) for a, b in plain],
    ]
    expected = quant.calibrate(residual(), FRAMES, method="max").ranges
    assert all(quant.calibrate(residual(), kind, method="max").ranges == expected for kind in kinds)
    assert not [w for w in recwarn if "not writable" in str(w.message)]


def test_an_empty_frame_among_others_changes_nothing() -> None:
    graph = residual()
    empty = (torch.zeros(0, 3), torch.zeros(0, 4, dtype=torch.int32))
    expected = quant.calibrate(graph, FRAMES).ranges
    assert quant.calibrate(graph, [empty, *FRAMES]).ranges == expected


def test_a_dead_weight_channel_gets_a_positive_range() -> None:
    build = GraphBuilder()
    weight = torch.randn(4, 3, 3, 3, 3)
    weight[2] = 0
    graph = build.finish(build.dense(build.conv(build.features, "c", (3, 4), weight=weight)))
    result = quant.calibrate(graph, FRAMES)
    assert result.ranges["c"].weight[2] == 1.0


def test_progress_counts_the_frames(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_FIRST", 0.0)
    quant.calibrate(residual(), FRAMES, progress=True)
    assert "3/3" in capsys.readouterr().err
    quant.calibrate(residual(), FRAMES)
    quant.calibrate(residual(), FRAMES, progress=False)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_the_cache_option_writes_the_cache(tmp_path: Path) -> None:
    quant.calibrate(residual(), FRAMES, cache=tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["frames"] == 3


# Bad input


def fails(
    error: type[Exception], match: str, graph: torch.fx.GraphModule, frames: object, **options: object
) -> None:
    """calibrate raises, and the graph is as it was."""
    before = {n.name: dict(n.kwargs) for n in graph.graph.nodes}
    meta = copy.deepcopy(graph.meta["scn_fx"])
    with pytest.raises(error, match=match) as raised:
        quant.calibrate(graph, frames, **options)
    assert "While executing" not in str(raised.value)  # torch.fx would append the node's text
    assert {n.name: dict(n.kwargs) for n in graph.graph.nodes} == before
    assert graph.meta["scn_fx"] == meta


@pytest.mark.parametrize(
    ("frames", "match"),
    [
        ([], "no frames"),
        (
            [FRAMES[0], (torch.zeros(5, 4), FRAMES[0][1][:5])],
            r"Frame 1 .*3 channels.*got 4 \(shape \[5, 4\]\)",
        ),
        ([FRAMES[0][:1]], r"Frame 0 .*2 tensors \(features, indices\), got 1"),
        ([(*FRAMES[0], FRAMES[0][0])], "expected a tuple of 2 tensors .* got 3"),
        ([FRAMES[0][0]], "expected a tuple of 2 tensors .* got a Tensor"),
        ([(FRAMES[0][0][:-1], FRAMES[0][1])], "features has 119 rows and indices 120"),
        ([(FRAMES[0][0], FRAMES[0][1].long())], r"indices must be int32 \[N, 4\].*torch.int64"),
        ([(FRAMES[0][0], FRAMES[0][1][:, :3])], r"indices must be int32 \[N, 4\].*\[120, 3\]"),
        ([(FRAMES[0][1], FRAMES[0][1])], "features must be float16 or float32"),
        ([("features", "indices")], "a value is no tensor"),
        ([(FRAMES[0][0][None], FRAMES[0][1][None])], r"\[1, 120, 3\]\. If a DataLoader .* batch_size=None"),
        (None, "frames must be an iterable of .*, got NoneType"),
        (5, "frames must be an iterable of .*, got int"),
    ],
)
def test_frames_that_do_not_fit(frames: object, match: str) -> None:
    fails(CalibrationError, match, residual(), frames)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e6])
def test_non_finite_features_name_frame_row_and_column(bad: float) -> None:
    features = FRAMES[1][0].clone()
    features[7, 2] = bad
    frames = [FRAMES[0], (features, FRAMES[1][1])]
    match = "Frame 1 .*features holds .* first in row 7, column 2"
    fails(NonFiniteError, match, residual(), frames, outliers="keep")


def test_a_non_finite_layer_is_named_with_its_frame() -> None:
    build = GraphBuilder()
    x = build.features
    for step in range(10):  # each layer multiplies by some ten thousand, until float32 ends
        x = build.conv(x, f"layer{step}", (3 if step == 0 else 4, 4), scale=2e4, relu=step % 2 == 0)
    graph = build.finish(build.dense(x))
    # The third frame's features alone are large enough.
    frames = [(features * 1e-6, indices) for features, indices in FRAMES[:2]] + [frame(2, scale=1e4)]
    match = r"Frame 2 .*the result of layer[78] holds \d+ NaN or infinite values"
    fails(NonFiniteError, match, graph, frames, outliers="keep")


def test_weights_that_are_not_finite_or_leave_float16_are_named() -> None:
    graph = residual()
    graph.extra_conv_0_weight[1, 1, 1, 1, 1] = 7e4
    fails(OverflowedError, "extra_conv.0: a weight of magnitude 70000 does not fit in float16", graph, FRAMES)
    graph.extra_conv_0_weight[1, 1, 1, 1, 1] = float("nan")
    fails(CalibrationError, "extra_conv.0: the weight holds NaN", graph, FRAMES)
    graph = residual()
    graph.extra_conv_0_bias[1] = float("inf")
    fails(CalibrationError, "extra_conv.0: the bias holds NaN", graph, FRAMES)


@pytest.mark.parametrize("method", quant.METHODS)
def test_a_dead_input_is_an_error_that_names_the_layer(method: str) -> None:
    graph = residual()
    graph.conv1_0_conv1_bias.fill_(-1e6)
    fails(
        CalibrationError,
        "conv1.0.conv2, input: every value was zero in all frames",
        graph,
        FRAMES,
        method=method,
    )


def test_duplicate_sites_name_the_frame() -> None:
    indices = FRAMES[1][1].clone()
    indices[5] = indices[4]
    fails(SiteError, "Frame 1 ", residual(), [FRAMES[0], (FRAMES[1][0], indices)])


def test_a_percentile_in_the_first_bin_is_an_error() -> None:
    features, indices = (t.clone() for t in FRAMES[0])
    features *= 1e-3
    features[0, 0] = 1e4
    options = {"method": "percentile", "percentile": 50.0, "outliers": "keep"}
    fails(CalibrationError, "first histogram bin", residual(), [(features, indices)], **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "minmax"}, "Unknown calibration method 'minmax'; expected one of max, percentile"),
        ({"percentile": 0.0}, r"percentile must be a number in \(0, 100\]"),
        ({"percentile": 101.0}, r"percentile must be a number in \(0, 100\]"),
        ({"percentile": 0.9999}, r"counts in percent, .* Did you mean 99\.99\?"),
        ({"percentile": 0.5}, r"Did you mean 50\?"),
        ({"percentile": 1.0, "method": "percentile"}, r"Did you mean 100\?"),
        ({"outliers": "clip"}, "Unknown outliers='clip'; expected one of drop, keep"),
        ({"consumers": True}, "Unknown consumers=True; expected one of aware, ignore"),
        ({"percentile": "99.9"}, "percentile must be a number .*, got '99.9'"),
        ({"percentile": None}, "percentile must be a number"),
        ({"num_bins": 100}, "num_bins must be a whole number, at least 256"),
        ({"num_bins": 512.5}, r"num_bins must be a whole number.* got 512\.5"),
        ({"precision": "int4"}, "Unknown precision 'int4'"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, object], match: str) -> None:
    fails(CalibrationError, match, residual(), FRAMES, **options)


@pytest.mark.parametrize(
    ("cache", "match"),
    [("/", "it is a folder. Name a file in it"), ("/nowhere/c.json", "its folder /nowhere does not exist")],
)
def test_a_cache_that_cannot_be_written_is_an_error_before_the_first_frame(cache: str, match: str) -> None:
    fails(WriteError, f"cannot be written: {match}", residual(), iter(["never read"]), cache=cache)


def test_a_graph_without_layers() -> None:
    build = GraphBuilder()
    graph = build.finish(build.dense(build.features))
    fails(CalibrationError, "nothing to calibrate", graph, FRAMES)


def test_importing_quant_stays_lean() -> None:
    code = "import sys, quant; print({'torch', 'modelopt', 'spconv', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert set(quant.__all__) <= set(dir(quant))
    assert all(getattr(quant, name) is not None for name in quant.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = quant.nothing
