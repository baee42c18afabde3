# SPDX-License-Identifier: Apache-2.0
"""Training a calibrated graph: gradients, ranges that follow, the same bits after it, bad input."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import quant
from scn_fx.errors import CalibrationError
from scn_fx.quant.qat import trainable_layers
from tests.quant.graphs import GraphBuilder
from tests.quant.improving import FRAMES, OTHERS, by_name, calibrated, chain, clipped, parameters, sqnr


def test_weights_and_biases_of_int8_layers_train() -> None:
    graph = calibrated()
    quant.set_precision(graph, {"conv_input.0": "fp16"})
    trained = quant.prepare_qat(graph)
    assert [each.layer.name for each in trained] == ["conv1.0.conv1", "conv1.0.conv2", "extra_conv.0"]
    assert {id(p) for p in graph.parameters() if p.requires_grad} == {
        id(p) for each in trained for p in (each.weight, each.bias)
    }
    graph(*FRAMES[0]).float().square().sum().backward()
    for each in trained:
        assert each.weight.grad is not None and bool(each.weight.grad.any())
        assert each.bias.grad is not None and bool(each.bias.grad.any())
    only = quant.prepare_qat(graph, layers="extra*")
    assert [each.layer.name for each in only] == ["extra_conv.0"]


def test_the_bias_gradient_is_exact_and_the_weight_gradient_that_of_the_quantised_input() -> None:
    build = GraphBuilder(3)
    graph = calibrated(build.finish(build.conv(build.features, "only", (3, 4), relu=False, kernel=(1, 1, 1))))
    (trained,) = quant.prepare_qat(graph)
    features, indices = FRAMES[0]
    # The output, and so its gradient, is float16.
    weights = torch.randn(len(features), 4, generator=torch.Generator().manual_seed(0)).half().float()
    (graph(features, indices).float() * weights).sum().backward()
    amax = np.float32(trained.layer.input_dynamic_range)
    levels = np.clip(np.rint(features.numpy() * (np.float32(127) / amax)), -128, 127)
    used = levels * (amax / np.float32(127))
    assert trained.bias.grad is not None and trained.weight.grad is not None
    np.testing.assert_allclose(trained.bias.grad, weights.sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        trained.weight.grad[:, 0, 0, 0, :], weights.numpy().T @ used, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("method", ["max", "mse"])
def test_ranges_follow_the_weights(method: str) -> None:
    graph = calibrated(method=method)
    before = {
        name: 127 * layer.weight.abs().amax((1, 2, 3, 4)) / torch.tensor(layer.weight_dynamic_ranges)
        for name, layer in by_name(graph).items()
        if layer.kind == "convolution"
    }
    largest = {round(float(level)) for levels in before.values() for level in levels}
    assert largest == {127} if method == "max" else len(largest) > 5  # integers of the largest weights
    trained = quant.prepare_qat(graph)
    with torch.no_grad():
        trained[0].weight[2] *= 3
        trained[1].weight[1] = 0
    quant.refresh_weight_ranges(graph)
    for each in trained:
        level = before[each.layer.name].round().double()
        expected = (each.weight.detach().half().double().abs().amax((1, 2, 3, 4)) * 127 / level).float()
        expected[expected == 0] = 1
        assert by_name(graph)[each.layer.name].weight_dynamic_ranges == expected.tolist()
    graph(*FRAMES[0])
    with torch.no_grad():
        trained[0].weight[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(CalibrationError, match=r"conv_input.0, weight of output channel 0"):
        quant.refresh_weight_ranges(graph)


def test_fine_tuning_helps_on_other_frames_and_beats_rounding_to_nearest() -> None:
    graph = clipped(calibrated(chain()), "second", "third")
    reference = copy.deepcopy(graph)
    before = sqnr(graph, reference, OTHERS)
    report = quant.finetune(graph, reference, FRAMES, steps=60, lr=2e-3, progress=False)
    assert sqnr(graph, reference, OTHERS) > before + 0.5
    assert report.sqnr_after > report.sqnr_before + 0.5
    assert len(report.losses) == 60 and np.mean(report.losses[-6:]) < np.mean(report.losses[:6])
    assert report.sqnr_after == pytest.approx(sqnr(graph, reference, FRAMES), abs=0.3)


def test_it_ends_as_a_graph_of_float16_numbers_that_runs_the_same_bits_in_the_engine(tmp_path: Path) -> None:
    import scn_fx

    graph = calibrated()
    reference = copy.deepcopy(graph)
    quant.prepare_qat(graph)
    with torch.no_grad():
        for each in trainable_layers(graph):
            each.weight.add_(
                0.01 * torch.randn(each.weight.shape, generator=torch.Generator().manual_seed(1))
            )
    quant.refresh_weight_ranges(graph)
    trained = graph(*OTHERS[0]).detach()
    quant.finish_qat(graph)
    assert torch.equal(graph(*OTHERS[0]), trained) and not trainable_layers(graph)
    assert not torch.equal(reference(*OTHERS[0]), trained)
    for weight, bias in parameters(graph).values():
        assert torch.equal(weight, weight.half().float()) and not weight.requires_grad
        assert bias is None or torch.equal(bias, bias.half().float())
    features, indices = OTHERS[0][0].half(), OTHERS[0][1]  # the engine rounds features, int8 layers do not
    path = tmp_path / "trained.onnx"
    torch.onnx.export(
        scn_fx.onnx_view(graph), (features,), str(path), dynamo=False,
        **scn_fx.export_options(graph, exporter="torchscript"),
    )  # fmt: skip
    dense = scn_fx.Engine(path, device="cpu")(features.numpy(), indices.numpy())
    np.testing.assert_array_equal(np.asarray(dense), graph(features, indices).numpy())


def test_stopping_keeps_what_was_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = calibrated()
    reference = copy.deepcopy(graph)
    steps = iter(range(3))

    def interrupted(optimized: torch.fx.GraphModule) -> None:
        quant.qat.refresh_weight_ranges(optimized)
        if next(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("scn_fx.quant.finetuning.refresh_weight_ranges", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quant.finetune(graph, reference, FRAMES, steps=10, lr=1e-2, progress=False)
    assert not trainable_layers(graph) and not any(p.requires_grad for p in graph.parameters())
    changed = [
        n for n, (w, _) in parameters(graph).items() if not torch.equal(w, parameters(reference)[n][0])
    ]
    assert changed == list(parameters(graph))
    graph(*FRAMES[0])


def test_bad_input() -> None:
    with pytest.raises(CalibrationError, match="Calibrate it first"):
        quant.prepare_qat(chain())
    graph = calibrated(chain())
    reference = copy.deepcopy(graph)
    with pytest.raises(CalibrationError, match="must be positive"):
        quant.finetune(graph, reference, FRAMES, steps=0)
    with pytest.raises(CalibrationError, match="no frames"):
        quant.finetune(graph, reference, [], progress=False)
    build = GraphBuilder()
    other = build.finish(build.dense(build.conv(build.features, "x", (3, 9))))
    with pytest.raises(CalibrationError, match=r"must have the graph's outputs"):
        quant.finetune(graph, other, FRAMES, progress=False)
    with pytest.raises(CalibrationError, match=r"Step 0 .*lr 1e\+30: .*finite number, got inf.*lower lr"):
        quant.finetune(graph, reference, FRAMES, lr=1e30, progress=False)
    assert not trainable_layers(graph) and torch.equal(graph(*FRAMES[0]), reference(*FRAMES[0]))
    report = quant.finetune(graph, reference, FRAMES, steps=3, lr=3.0, progress=False)
    assert report.kept and report.sqnr_after == report.sqnr_before
    assert torch.equal(graph(*FRAMES[0]), reference(*FRAMES[0]))
