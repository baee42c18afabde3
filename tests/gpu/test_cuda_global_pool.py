# SPDX-License-Identifier: Apache-2.0
"""Global pooling on a GPU: the bits of the CPU, and of the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scn_fx import Engine
from scn_fx.errors import OverflowedError
from tests.oracle.compare import assert_same_bits
from tests.oracle.global_pools import CASES, KINDS, pool_frame, pool_network
from tests.oracle.network import run_network

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("channels", [3, 300])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", [None, "fp32"])
@pytest.mark.parametrize("strided", [False, True])
def test_it_has_the_bits_of_the_cpu(
    case: str, kind: str, channels: int, precision: str | None, strided: bool
) -> None:
    counts, wide = CASES[case], precision is not None
    frame = pool_frame(counts, wide=wide)
    data = pool_network(kind, channels, len(counts), wide=wide, strided=strided)
    expected = Engine(data, precision=precision)(*frame)
    assert_same_bits(
        expected, run_network(data, *frame, len(counts), precision=precision).outputs[0].values, "CPU"
    )
    for graph in (True, False):
        engine = Engine(data, "cuda", precision=precision, graph=graph)
        assert_same_bits(engine(*frame), expected, f"graph {graph}")
        on_gpu = engine(*(torch.from_numpy(array).cuda() for array in frame))
        assert_same_bits(on_gpu.cpu().numpy(), expected, f"graph {graph}, GPU memory")
    assert_same_bits(engine.trace(*frame)[-1].values, expected, "trace")


def test_values_that_int8_layers_hand_on_unrounded() -> None:
    frame = pool_frame((300, 20))
    for kind in KINDS:
        data = pool_network(kind, 20, 2, int8=True)
        assert_same_bits(Engine(data, "cuda")(*frame), Engine(data)(*frame), kind)


def test_frames_of_other_batch_sizes_one_after_another() -> None:
    """Smaller ones than the engine has room for: what is behind them is not looked at."""
    data = pool_network("mean", 5, 2)
    gpu, cpu = Engine(data, "cuda", max_batch_size=4), Engine(data)
    for counts in ((300, 0, 513), (4,), (0, 0), (200, 90, 400, 7), (700, 90)):
        frame, batch = pool_frame(counts, seed=len(counts)), len(counts)
        assert_same_bits(gpu(*frame, batch_size=batch), cpu(*frame, batch_size=batch), str(counts))


def test_a_sum_beyond_float16_is_the_same_error() -> None:
    features, sites = np.full((600, 2), 200, np.float16), pool_frame((600,))[1]
    said = []
    for device in ("cpu", "cuda"):
        with pytest.raises(OverflowedError, match=r"^pool: 4 ") as error:
            Engine(pool_network("sum", 4, 1), device)(features, sites)
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_has_the_bits_of_the_engine(kind: str) -> None:
    """On tensors in GPU memory."""
    features, sites = pool_frame((300, 0, 513), wide=True)
    data = pool_network(kind, 3, 3, wide=True)
    rows = run_network(data, features, sites, 3, precision="fp32")
    x = torch.from_numpy(rows.nodes["first"].values).cuda().requires_grad_()
    made = torch.ops.scn_fx.global_pool(x, torch.from_numpy(sites).cuda(), name="p", kind=kind, batch_size=3)
    assert_same_bits(made.detach().cpu().numpy(), rows.outputs[0].values)
    made.sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())
