# SPDX-License-Identifier: Apache-2.0
"""Which layers become int8, which hand on float16, and how patterns change that."""

from __future__ import annotations

import pytest
import torch

import quant
from scn_fx.errors import CalibrationError
from scn_fx.graph import layers
from scn_fx.quant.precision import output_precisions, override
from tests.quant.graphs import GraphBuilder, frame, residual

FRAMES = [frame(seed) for seed in range(2)]


@pytest.fixture(scope="module")
def calibrated() -> torch.fx.GraphModule:
    graph = residual()
    quant.calibrate(graph, FRAMES, method="max")
    return graph


@pytest.fixture
def graph(calibrated: torch.fx.GraphModule) -> torch.fx.GraphModule:
    quant.set_precision(calibrated, "default")
    return calibrated


def precisions(graph: torch.fx.GraphModule) -> dict[str, str]:
    """'precision>output precision' by layer name."""
    return {
        layer.name: f"{layer.precision}>{layer.output_precision}"
        for layer in layers(graph)
        if layer.kind in ("convolution", "add")
    }


def test_the_default_of_a_residual_network(graph: torch.fx.GraphModule) -> None:
    assert quant.default_precisions(graph) == {
        "conv_input.0": "fp16", "conv1.0.conv1": "int8", "conv1.0.conv2": "int8", "conv1.0.add": "int8",
        "extra_conv.0": "int8",
    }  # fmt: skip
    assert precisions(graph) == {
        "conv_input.0": "fp16>int8", "conv1.0.conv1": "int8>int8", "conv1.0.conv2": "int8>int8",
        "conv1.0.add": "int8>int8", "extra_conv.0": "int8>fp16",
    }  # fmt: skip
    assert graph(*FRAMES[0]).dtype == torch.float16


def test_every_convolution_that_reads_the_features_is_a_first_one() -> None:
    build = GraphBuilder()
    a = build.conv(build.features, "a", (3, 4))
    b = build.conv(build.relu(build.features, "r"), "b", (3, 4))
    graph = build.finish(build.dense(build.add(a, b, "s")))
    assert quant.default_precisions(graph) == {"a": "fp16", "b": "fp16", "s": "int8"}


def test_output_precision_looks_through_relu_and_needs_every_consumer() -> None:
    build = GraphBuilder()
    a = build.conv(build.features, "a", (3, 4), relu=False)  # -> relu -> b and c
    r = build.relu(build.relu(a, "r1"), "r2")
    b = build.conv(r, "b", (4, 4))  # -> c and the dense map
    c = build.add(r, b, "c")  # -> the output alone
    unread = build.conv(c, "unread", (4, 4))
    graph = build.finish((build.dense(b), c))
    assert unread.users == {}
    chosen = quant.default_precisions(graph)
    assert output_precisions(graph, chosen) == {"a": "int8", "b": "fp16", "c": "fp16", "unread": "fp16"}
    assert output_precisions(graph, {**chosen, "b": "fp16"})["a"] == "fp16"
    assert output_precisions(graph, {**chosen, "c": "fp16"}) == {
        "a": "fp16", "b": "fp16", "c": "fp16", "unread": "fp16",
    }  # fmt: skip


def test_a_relu_that_is_an_output_keeps_float16() -> None:
    build = GraphBuilder()
    a = build.conv(build.features, "a", (3, 4), relu=False)
    r = build.relu(a, "r")
    graph = build.finish((build.dense(build.conv(r, "b", (4, 4))), r))
    assert output_precisions(graph, quant.default_precisions(graph))["a"] == "fp16"


def test_patterns_apply_in_order_and_the_last_match_wins(graph: torch.fx.GraphModule) -> None:
    chosen = quant.set_precision(graph, {"*": "int8", "conv1.*": "fp16", "conv1.0.add": "int8"})
    assert chosen == {
        "conv_input.0": "int8", "conv1.0.conv1": "fp16", "conv1.0.conv2": "fp16", "conv1.0.add": "int8",
        "extra_conv.0": "int8",
    }  # fmt: skip
    assert precisions(graph) == {
        "conv_input.0": "int8>fp16", "conv1.0.conv1": "fp16>fp16", "conv1.0.conv2": "fp16>int8",
        "conv1.0.add": "int8>int8", "extra_conv.0": "int8>fp16",
    }  # fmt: skip
    assert graph(*FRAMES[0]).isfinite().all()


def test_set_precision_keeps_what_no_pattern_names(graph: torch.fx.GraphModule) -> None:
    quant.set_precision(graph, {"conv1.0.conv1": "fp16"})
    chosen = quant.set_precision(graph, {"extra*": "fp16"})
    assert [name for name, value in chosen.items() if value == "fp16"] == [
        "conv_input.0", "conv1.0.conv1", "extra_conv.0",
    ]  # fmt: skip


def test_calibrate_applies_patterns_to_the_default() -> None:
    graph = residual()
    result = quant.calibrate(graph, FRAMES, method="max", precision={"extra*": "fp16"})
    assert result.precisions["conv_input.0"] == result.precisions["extra_conv.0"] == "fp16"
    assert result.output_precisions["conv1.0.add"] == "fp16"
    assert set(quant.calibrate(graph, FRAMES, method="max", precision="int8").precisions.values()) == {"int8"}


def test_fp32_is_the_float_reference_of_the_whole_graph(graph: torch.fx.GraphModule) -> None:
    quant.set_precision(graph, "fp32")
    assert set(precisions(graph).values()) == {"fp32>fp32"}
    assert torch.equal(graph(*FRAMES[0]), residual()(*FRAMES[0]))
    with pytest.raises(CalibrationError, match=r"fp32 is the reference .* whole graph .* cannot be mixed"):
        quant.set_precision(graph, {"conv1.*": "int8"})
    assert set(precisions(graph).values()) == {"fp32>fp32"}
    quant.set_precision(graph, "default")
    with pytest.raises(CalibrationError, match="cannot be mixed: 1 layers would be fp32"):
        quant.set_precision(graph, {"conv1.0.add": "fp32"})
    with pytest.raises(CalibrationError, match="cannot be mixed"):
        quant.calibrate(residual(), FRAMES, precision={"extra*": "fp32"})


def test_float16_needs_no_ranges_and_int8_does() -> None:
    graph = residual()
    quant.set_precision(graph, "fp16")
    assert set(precisions(graph).values()) == {"fp16>fp16"}
    with pytest.raises(CalibrationError, match=r"conv1.0.conv1 has no ranges, which int8 needs. Calibrate"):
        quant.set_precision(graph, "default")
    assert set(precisions(graph).values()) == {"fp16>fp16"}


@pytest.mark.parametrize(
    ("patterns", "match"),
    [
        ({"conv9.*": "fp16"}, r"'conv9.\*' matches none of the 5 layers: conv_input.0, conv1.0.conv1"),
        ({"dense": "fp16"}, "'dense' matches none"),
        ({"*": "int4"}, r"Unknown precision 'int4' for '\*'; expected one of fp32, fp16, int8"),
        ({"conv1.*": "fp16", "*": "int8"}, r"'conv1.\*' has no effect.*Write general patterns first"),
    ],
)
def test_patterns_that_cannot_be_meant(
    graph: torch.fx.GraphModule, patterns: dict[str, str], match: str
) -> None:
    before = precisions(graph)
    with pytest.raises(CalibrationError, match=match):
        quant.set_precision(graph, patterns)
    assert precisions(graph) == before


def test_patterns_are_case_sensitive_shell_patterns() -> None:
    base = dict.fromkeys(("a.conv1", "a.conv2", "b.conv1"), "int8")
    assert override(base, {"a.conv[12]": "fp16"}) == {"a.conv1": "fp16", "a.conv2": "fp16", "b.conv1": "int8"}
    with pytest.raises(CalibrationError, match="matches none"):
        override(base, {"A.*": "fp16"})


def test_layers_whose_int32_sums_could_overflow_are_not_int8() -> None:
    # 131,072 products of up to 2^14 each reach 2^31; one less does not.
    for channels, fits in ((131_071, True), (131_072, False)):
        build = GraphBuilder()
        x = build.conv(build.features, "a", (3, 1), kernel=(1, 1, 1))
        wide = torch.ones(1, 1, 1, 1, channels)
        build.conv(x, "wide", (channels, 1), kernel=(1, 1, 1), weight=wide)
        graph = build.finish(x)
        assert quant.default_precisions(graph)["wide"] == ("int8" if fits else "fp16")
        if not fits:
            with pytest.raises(CalibrationError, match=r"wide: 131072 products .* can overflow int32"):
                quant.calibrate(graph, FRAMES, precision={"wide": "int8"})
