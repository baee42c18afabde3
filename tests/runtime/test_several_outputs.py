# SPDX-License-Identifier: Apache-2.0
"""Files with several outputs: both exporters, the engine, the comparison, and the graph of the file."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import quant
import scn_fx
from scn_fx.capture import capture
from scn_fx.files.onnx_models import read_model
from scn_fx.graph_outputs import graph_results, listed
from scn_fx.runtime.file_graph import file_graph
from tests.capture.frames import frame
from tests.capture.test_several_outputs import LEVELS, args, model

FRAMES = [frame(seed=seed) for seed in range(2)]


def exported(graph: Any, dynamo: bool, dialect: str = "libspconv") -> bytes:
    file = io.BytesIO()
    options = scn_fx.export_options(graph, exporter="dynamo" if dynamo else "torchscript", dialect=dialect)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = scn_fx.onnx_view(graph, dialect)
        torch.onnx.export(view, (FRAMES[0][0],), file, dynamo=dynamo, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def graph() -> Any:
    made = capture(model(), args(*FRAMES[0]), LEVELS)
    quant.calibrate(made, FRAMES, method="max", progress=False)
    return made


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("dialect", ["libspconv", "scn_fx"])
def test_every_output_has_the_bits_of_the_graph(graph: Any, dynamo: bool, dialect: str) -> None:
    data = exported(graph, dynamo, dialect)
    assert list(read_model(data)["outputs"]) == ["output0", "output1", "output2"]
    engine = scn_fx.Engine(data, threads=1)
    features, indices = FRAMES[1]
    (second, second_sites), bev, (first, first_sites) = engine(features.numpy(), indices.numpy())
    expected = graph(features.half().float(), indices)
    for found, wanted in zip((second, second_sites, bev, first, first_sites), listed(expected), strict=True):
        assert np.array_equal(found, wanted.numpy().astype(found.dtype))
    comparison = scn_fx.compare(graph, engine, FRAMES)
    assert comparison.ok and comparison.identical
    assert [entry.name for entry in comparison.outputs] == ["output0", "output1", "output2"]


def test_a_comparison_sees_which_output_differs(graph: Any) -> None:
    other = capture(model(), args(*FRAMES[0]), [LEVELS[2], LEVELS[1], LEVELS[0]])
    quant.calibrate(other, FRAMES, method="max", progress=False)
    comparison = scn_fx.compare(other, scn_fx.Engine(exported(graph, True), threads=1), FRAMES[:1])
    assert [entry.ok for entry in comparison.outputs] == [False, True, False]
    assert all(entry.ok for entry in comparison.nodes)


def test_the_graph_of_a_file_returns_what_the_captured_one_returns(graph: Any) -> None:
    again = file_graph(exported(graph, True)).graph
    kinds = [[result.indices is not None for result in graph_results(each)] for each in (graph, again)]
    assert kinds[0] == kinds[1] == [True, False, True]
    found, expected = again(*FRAMES[0]), capture(model(), args(*FRAMES[0]), LEVELS)(*FRAMES[0])
    assert len(found) == len(expected) == 3 and len(found[0]) == 2
    for a, b in zip(listed(found), listed(expected), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-2)


def test_two_dense_maps_are_two_outputs() -> None:
    from torch import nn

    from tests.capture.test_several_outputs import Levels

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels: Levels = model()  # type: ignore[assignment]

        def forward(self, batch_dict: dict[str, Any]) -> Any:
            made = self.levels(batch_dict)["multi_scale_3d_features"]
            return made["x_conv1"].dense(), made["x_conv3"].dense().flatten(1, 2)

    net = Both().eval()
    graph = capture(net, args(*FRAMES[0]), [1, 0])
    engine = scn_fx.Engine(exported(graph, True), threads=1)
    wide, full = engine(FRAMES[0][0].numpy(), FRAMES[0][1].numpy())
    assert wide.shape == (1, 48, 3, 4) and full.shape == (1, 8, 9, 12, 13)
    assert scn_fx.compare(graph, engine, FRAMES).ok
