# SPDX-License-Identifier: Apache-2.0
"""Graphs on CUDA: the same results as on the CPU, to the bit in int8; gradients; training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx

from scn_fx.graph import layers
from tests.oracle.compare import assert_same_bits
from tests.quant.graphs import frame, residual

pytestmark = pytest.mark.gpu


def in_precision(graph: fx.GraphModule, precision: str) -> fx.GraphModule:
    """The graph with ranges of any width, its first layer in float16 as usual."""
    for layer in layers(graph):
        own = "fp16" if layer.name == "conv_input.0" and precision == "int8" else precision
        handed_on = "fp32" if precision == "fp32" else "fp16"
        if layer.kind == "convolution":
            ranges = {"input_dynamic_range": 3.0, "weight_dynamic_ranges": [0.8] * len(layer.weight)}
            layer.set(precision=own, output_precision=handed_on, **(ranges if own == "int8" else {}))
        elif layer.kind == "add":
            layer.set(
                precision=own, output_precision=handed_on, input0_dynamic_range=3.0, input1_dynamic_range=4.0
            )
    return graph


def weights(graph: fx.GraphModule) -> list[Tensor]:
    """The graph's weights and biases, as what is trained."""
    return [buffer.requires_grad_() for buffer in graph.buffers()]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("channels", [4, 24])
def test_results_and_gradients_are_those_of_the_cpu(precision: str, channels: int) -> None:
    features, indices = frame(1)
    on_cpu = in_precision(residual(channels=channels), precision)
    on_gpu = copy.deepcopy(on_cpu).cuda()
    runs = []
    for graph, device in ((on_cpu, "cpu"), (on_gpu, "cuda")):
        trained = weights(graph)
        y = graph(features.to(device), indices.to(device))
        assert y.device.type == device
        y.float().square().sum().backward()
        runs.append((y.detach().cpu(), [buffer.grad.cpu() for buffer in trained if buffer.grad is not None]))
    (expected, gradients), (found, others) = runs
    if precision == "int8" or channels <= 8:
        assert_same_bits(found.numpy(), expected.numpy())
    else:
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    assert len(gradients) == len(others) == 8
    for one, other in zip(others, gradients, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=5e-3, atol=5e-3 * scale)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_training_lowers_the_loss(precision: str) -> None:
    graph = in_precision(residual(channels=16), precision).cuda()
    features, indices = (t.cuda() for t in frame(2))
    target = in_precision(residual(seed=5, channels=16), "fp32").cuda()(features, indices)
    optimiser = torch.optim.Adam(weights(graph), lr=3e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = torch.nn.functional.mse_loss(graph(features, indices).float(), target)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
