# SPDX-License-Identifier: Apache-2.0
"""The view of a captured graph: layers, metadata, copies, fingerprint."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import fx, nn

from scn_fx.capture import capture
from scn_fx.errors import BoundError, CaptureError
from scn_fx.geometry import ConvGeometry
from scn_fx.graph import fingerprint, layers, metadata, operator_name, set_metadata
from tests.capture.frames import GRID, frame, sparse


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    model = spconv.SparseSequential(
        spconv.SubMConv3d(4, 8, 3),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        spconv.SparseConv3d(8, 8, (3, 1, 1), (2, 1, 1), bias=False),
        spconv.ToDense(),
    ).eval()
    return capture(model, (sparse(*frame()),))


def test_a_layer_reads_the_arguments_of_its_node(graph: fx.GraphModule) -> None:
    first, second, dense = layers(graph)
    assert (first.name, first.kind, first.activation, first.rulebook) == ("0", "convolution", "ReLU", "0")
    assert first.weight.shape == (8, 3, 3, 3, 4)
    assert first.bias is not None
    assert first.bias.shape == (8,)
    assert second.bias is None
    assert first.geometry == ConvGeometry.submanifold(GRID, (3, 3, 3), (1, 1, 1))
    assert second.geometry == ConvGeometry.strided(GRID, (3, 1, 1), (2, 1, 1), (0, 0, 0), (1, 1, 1))
    assert (first.precision, first.input_dynamic_range, first.weight_dynamic_ranges) == ("fp32", None, None)
    assert second.inputs == (first.node,)
    assert (dense.batch_size, dense.format, dense.spatial_shape) == (1, "zyx", [4, 12, 13])
    with pytest.raises(AttributeError, match="scatter_dense"):
        _ = dense.rulebook


def test_only_operators_of_the_dialect_remain(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        if node.op == "call_function":
            assert operator_name(node) or node.target.__name__ == "getitem"
        else:
            assert node.op in ("placeholder", "get_attr", "output")
        assert not node.meta
    assert all(value.dtype == torch.float32 for value in graph.parameters())
    assert set(graph.state_dict()) == {"0_weight", "0_bias", "3_weight"}


def test_a_set_range_is_run_at_once(graph: fx.GraphModule) -> None:
    mine = copy.deepcopy(graph)
    before = mine(*frame())
    first = layers(mine)[0]
    first.set(
        precision="int8", output_precision="int8", input_dynamic_range=0.5, weight_dynamic_ranges=[0.1] * 8
    )
    assert first.weight_dynamic_ranges == pytest.approx([0.1] * 8)
    assert not torch.equal(mine(*frame()), before)
    assert torch.equal(graph(*frame()), before)
    with pytest.raises(AttributeError, match="no keyword argument 'amax'"):
        first.set(amax=1.0)


def test_geometry_rulebook_and_bound_are_the_kernel_maps(graph: fx.GraphModule) -> None:
    mine = copy.deepcopy(graph)
    first, second, _ = layers(mine)
    for wrong in ({"stride": [5, 5, 5]}, {"output_bound": 7}, {"rulebook": "x"}, {"subm": False}):
        with pytest.raises(AttributeError, match=r"'convolution'.*is its kernel map's.*kernel_map\.set\("):
            second.set(**wrong)
    second.kernel_map.set(output_bound=7)
    assert (first.output_bound, second.output_bound) == (200_000, 7)
    with pytest.raises(BoundError, match=r"3\b.*7\b"):
        mine(*frame())
    with pytest.raises(AttributeError, match="kernel map of 3 has no keyword argument 'bound'"):
        second.kernel_map.set(bound=7)


def test_layers_of_one_map_share_its_bound_and_an_inverse_has_its_own() -> None:
    torch.manual_seed(0)
    model = spconv.SparseSequential(
        spconv.SubMConv3d(4, 4, 3, indice_key="a"),
        spconv.SubMConv3d(4, 4, 3, indice_key="a"),
        spconv.SparseConv3d(4, 4, 3, 2, indice_key="b"),
        spconv.SparseInverseConv3d(4, 4, 3, indice_key="b"),
    ).eval()
    found = layers(capture(model, (sparse(*frame()),), output_bound=500))
    assert [layer.rulebook for layer in found] == ["a", "a", "b", "b"]
    found[1].kernel_map.set(output_bound=9)
    found[3].kernel_map.set(output_bound=8)
    assert [layer.output_bound for layer in found] == [9, 9, 500, 8]
    down, up = found[2].geometry, found[3].geometry
    assert up == down.inverted() and up.inverse and up.output_spatial_shape == down.input_spatial_shape
    found[0].kernel_map.set(output_bound=500)
    with pytest.raises(BoundError, match=r"Layer '3' has \d+ output sites, more than its output_bound of 8"):
        found[0].graph(*frame())


def _copied(graph: fx.GraphModule) -> Any:
    return copy.deepcopy(graph)


def _pickled(graph: fx.GraphModule) -> Any:
    return pickle.loads(pickle.dumps(graph))


def _saved(graph: fx.GraphModule) -> Any:
    file = io.BytesIO()
    torch.save(graph, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("make", [_copied, _pickled, _saved])
def test_copies_keep_everything_and_share_nothing(graph: fx.GraphModule, make: Any) -> None:
    before = fingerprint(graph)
    twin = make(graph)
    assert type(twin).__mro__[1] is type(graph).__mro__[1]
    assert twin.meta == graph.meta
    assert fingerprint(twin) == before
    assert torch.equal(twin(*frame()), graph(*frame()))
    twin.meta["scn_fx"]["notes"].append("a note")
    set_metadata(twin, calibration={"method": "max", "frames": 1})
    assert metadata(graph)["calibration"] is None
    assert metadata(graph)["notes"] == []
    assert make(twin).meta == twin.meta


def test_the_fingerprint_ignores_ranges_and_sees_weights(graph: fx.GraphModule) -> None:
    before = fingerprint(graph)
    twin = copy.deepcopy(graph)
    layers(twin)[0].set(precision="fp16", output_precision="fp16", input_dynamic_range=2.0)
    layers(twin)[0].kernel_map.set(output_bound=9)
    assert fingerprint(twin) == before
    with torch.no_grad():
        layers(twin)[0].weight[0, 0, 0, 0, 0] += 1.0
    assert fingerprint(twin) != before


def test_metadata_of_a_foreign_graph_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"scn_fx\.capture"):
        metadata(fx.symbolic_trace(nn.Identity()))
