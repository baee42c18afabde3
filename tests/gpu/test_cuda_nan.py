# SPDX-License-Identifier: Apache-2.0
"""NaN, larger dense maps and arrays of other kinds on a GPU: as on the CPU and as the oracle has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scn_fx import Engine
from scn_fx.errors import OverflowedError, SiteError
from tests.gpu.networks import GRID, small_network
from tests.oracle.compare import assert_same_bits
from tests.oracle.frames import random_sites
from tests.oracle.larger_maps import larger_map
from tests.oracle.nan_networks import assert_same_values, nan_network
from tests.oracle.network import run_network

pytestmark = pytest.mark.gpu

WIDTHS = [1, 3, 8, 16, 33, 64, 100, 128]


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("channels", WIDTHS)
def test_nan_passes_every_activation_in_float32(channels: int, graph: bool) -> None:
    network = nan_network(channels)
    frame = network.features, network.sites
    outputs = Engine(network.onnx, "cuda", precision="fp32", graph=graph)(*frame)
    cpu = Engine(network.onnx, precision="fp32")(*frame)
    for got, like, expected in zip(outputs, cpu, network.expected.outputs, strict=True):
        values, same = (out[0] if isinstance(out, tuple) else out for out in (got, like))
        assert_same_values(values, expected.values, expected.name)
        assert_same_values(values, same, f"{expected.name} on the CPU")


@pytest.mark.parametrize("channels", WIDTHS)
def test_nan_in_every_node_of_a_trace(channels: int) -> None:
    network = nan_network(channels, seed=1)
    engine = Engine(network.onnx, "cuda", precision="fp32")
    for node in engine.trace(network.features, network.sites):
        assert_same_values(node.values, network.expected.nodes[node.name].values, node.name)


@pytest.mark.parametrize("channels", WIDTHS)
def test_in_float16_it_is_reported(channels: int) -> None:
    """Narrow layers and those of tensor cores, with the message of the CPU."""
    network = nan_network(channels)
    said = []
    for device in ("cpu", "cuda"):
        with pytest.raises(OverflowedError, match=r"grow0: .*NaN or do not fit in float16") as error:
            Engine(network.onnx, device)(network.features, network.sites)
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("precision", [None, "int8"])
@pytest.mark.parametrize("channels", [3, 16, 40, 64, 128, 130, 256])
@pytest.mark.parametrize("inputs", [4, 16, 64])
@pytest.mark.parametrize("relu", [False, True])
def test_sites_keep_their_places_in_a_larger_map(
    precision: str | None, channels: int, inputs: int, relu: bool
) -> None:
    """Scattered by the convolution itself, and, in a trace, by a kernel of its own. Every float16 sum of
    these values is exact."""
    network = larger_map(channels, (1, 3, 2), channels, inputs=inputs, precision=precision, relu=relu)
    frame = network.features, network.sites
    expected = Engine(network.onnx)(*frame)
    assert_same_bits(expected, run_network(network.onnx, *frame, 2).dense, "CPU")
    engine = Engine(network.onnx, "cuda")
    assert_same_bits(engine(*frame), expected, "host")
    on_gpu = engine(*(torch.from_numpy(array).cuda() for array in frame))
    assert_same_bits(on_gpu.cpu().numpy(), expected, "GPU memory")
    assert_same_bits(engine.trace(*frame)[-1].values, expected, "trace")
    assert_same_bits(
        Engine(network.onnx, "cuda", precision="fp32")(*frame),
        Engine(network.onnx, precision="fp32")(*frame),
        "fp32",
    )


def _frame() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    sites = random_sites(rng, 90, GRID)
    return torch.from_numpy(rng.normal(size=(90, 2)).astype(np.float32)).bfloat16(), torch.from_numpy(sites)


@pytest.mark.parametrize("own_stream", [False, True])
def test_bfloat16_is_widened(own_stream: bool) -> None:
    features, sites = _frame()
    expected = Engine(small_network())(features.float(), sites)
    engine = Engine(small_network(), "cuda")
    stream = torch.cuda.Stream() if own_stream else None
    here = features.cuda(), sites.cuda()
    torch.cuda.synchronize()
    for given in (here, (here[0].t().contiguous().t(), here[1])):
        dense = engine(*given, stream=stream)
        torch.cuda.synchronize()
        assert torch.equal(dense.cpu(), expected)
    assert torch.equal(engine(features, sites), expected)


@pytest.mark.filterwarnings("ignore")  # torch calls some of these prototypes
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, i: (f.double(), i), r"features must be .* got float64\. .*features\.float\(\)"),
        (lambda f, i: (f.cfloat(), i), r"features must be .* got complex64"),
        (lambda f, i: (f.to(torch.float8_e4m3fn), i), r"got float8_e4m3fn"),
        (lambda f, i: (f.float().to_sparse(), i), r"sparse_coo"),
        (lambda f, i: (f, i.long()), r"indices must be int32 .* got int64\. .*indices\.int\(\)"),
        (lambda f, i: (f.to("meta"), i), r"without values"),
    ],
)
def test_other_tensors_are_refused(change: Any, message: str) -> None:
    features, sites = (tensor.cuda() for tensor in _frame())
    engine = Engine(small_network(), "cuda")
    for call in (engine, engine.trace, engine.profile):
        with pytest.raises(SiteError, match=message):
            call(*change(features, sites))
    assert engine(features, sites).shape
