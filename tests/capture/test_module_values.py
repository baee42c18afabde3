# SPDX-License-Identifier: Apache-2.0
"""Ending the captured part at a module that the model does not return, and beginning it after a reader."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

import quant
from scn_fx.capture import capture
from scn_fx.errors import CaptureError
from scn_fx.graph import layers, metadata
from tests.capture.frames import GRID, frame, ordered, randomise, relative, sparse
from tests.capture.test_several_outputs import Levels, block


class MeanVFE(nn.Module):
    """Mean of each voxel's points, as OpenPCDet has it: the features go into the batch dictionary."""

    def forward(self, batch_dict: dict[str, Any]) -> dict[str, Any]:
        voxels, counts = batch_dict["voxels"], batch_dict["voxel_num_points"]
        mean = voxels[:, :, :].sum(dim=1, keepdim=False)
        normaliser = torch.clamp_min(counts.view(-1, 1), min=1.0).type_as(voxels)
        batch_dict["voxel_features"] = (mean / normaliser).contiguous()
        return batch_dict


class Detector(nn.Module):
    """Reader, backbone and a dense neck; boxes are chosen by their scores."""

    def __init__(self) -> None:
        super().__init__()
        self.vfe = MeanVFE()
        self.backbone = Levels()

    def forward(self, batch_dict: dict[str, Any]) -> Any:
        for module in (self.vfe, self.backbone):
            batch_dict = module(batch_dict)
        scores = batch_dict["neck"].flatten()
        return {"boxes": scores[scores > float(scores.mean())], "vfe": batch_dict["spatial_features"]}


def detector() -> Detector:
    torch.manual_seed(0)
    made = randomise(Detector())
    assert isinstance(made, Detector)
    return made


def points(features: torch.Tensor, indices: torch.Tensor) -> tuple[dict[str, Any]]:
    """A batch dictionary of voxels of five points [N, 5, C]."""
    generator = torch.Generator().manual_seed(0)
    voxels = features[:, None] + torch.randn(len(features), 5, features.shape[1], generator=generator)
    counts = torch.full((len(features),), 5)
    return ({"voxels": voxels, "voxel_num_points": counts, "voxel_coords": indices, "batch_size": 1},)


def same(found: Any, wanted: Any) -> None:
    values, sites = ordered(*found)
    expected, rows = ordered(wanted.features, wanted.indices)
    assert torch.equal(sites, rows)
    assert relative(values, expected) <= 1e-5


def test_the_forward_need_not_return_nor_be_followed_after_the_module() -> None:
    net, (features, indices) = detector(), frame()
    graph = capture(net, points(features, indices), ["backbone.conv3", "backbone.conv1"], input="vfe")
    with torch.no_grad():
        batch = net.vfe(*points(features, indices))
        levels = net.backbone(batch)["multi_scale_3d_features"]
    found = graph(batch["voxel_features"], indices)
    same(found[0], levels["x_conv3"])
    same(found[1], levels["x_conv1"])
    (note,) = [note for note in metadata(graph)["notes"] if "could not be followed" in note]
    assert "test_module_values.py:" in note and "scores.mean()" in note


def test_a_graph_that_begins_after_a_reader_takes_its_features() -> None:
    features, indices = frame()
    graph = capture(detector(), points(features, indices), "backbone.conv2", input="vfe")
    names = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
    assert names == ["voxel_features", "voxel_coords"]
    assert (metadata(graph)["features"], metadata(graph)["indices"]) == ("voxel_features", "voxel_coords")
    assert "module 'vfe' makes" in "".join(metadata(graph)["notes"])
    assert quant.calibrate(graph, [(features, indices)], progress=False).frames == 1
    named = capture(detector(), points(features, indices), "backbone.conv2", input=("vfe", "voxel_features"))
    assert [layer.name for layer in layers(named)] == [layer.name for layer in layers(graph)]


def test_a_reader_gets_no_advice_for_activations() -> None:
    """A limit of a count is a clamp as well; the way out is to begin behind the reader."""
    with pytest.raises(CaptureError, match=r"clamp_min in module 'vfe' \(MeanVFE\)") as caught:
        capture(detector(), points(*frame()), "backbone.conv2")
    assert "input='vfe'" in str(caught.value) and "activation" not in str(caught.value)
    assert "at test_module_values.py:" in str(caught.value)


class Reader(nn.Module):
    """Features of the voxels, by themselves."""

    def forward(self, voxels: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        return (voxels[:, :, :4].sum(dim=1) / counts.type_as(voxels).view(-1, 1)).contiguous()


class TwoStage(nn.Module):
    """CenterPoint's manner: reader(features, num_voxels), backbone(features, coors, batch_size, shape)."""

    def __init__(self, calls: int = 1) -> None:
        super().__init__()
        self.reader, self.conv, self.calls = Reader(), block(4, 8, "a"), calls

    def forward(self, coors: torch.Tensor, voxels: torch.Tensor, counts: torch.Tensor) -> Any:
        features = voxels[:, 0]
        for _ in range(self.calls):
            features = self.reader(voxels, counts)
        x = self.conv(spconv.SparseConvTensor(features, coors, list(GRID), 1))
        return x


def test_features_come_before_the_arguments_that_are_left() -> None:
    net, (features, indices) = randomise(TwoStage()), frame()
    voxels = features[:, None].repeat(1, 3, 1)
    args = (indices, voxels, torch.full((len(features),), 3))
    graph = capture(net, args, input="reader")
    assert [n.name for n in graph.graph.nodes if n.op == "placeholder"] == ["features", "coors"]
    with torch.no_grad():
        same(graph(features, indices), net(*args))
    with pytest.raises(CaptureError, match=r"type_as in module 'reader' \(Reader\).*input='reader'"):
        capture(net, args)


@pytest.mark.parametrize(
    ("begin", "calls", "text"),
    [
        ("nothing", 1, "input must be the path of a module.*modules are reader, conv"),
        ("", 1, "input must be the path of a module"),
        (3, 1, "input must be the path of a module"),
        ("conv", 1, r"expected one float tensor \[N, C\].*'conv': SparseConvTensor"),
        (("reader", 1), 1, r"input=\('reader', 1\): expected one float tensor"),
        ("reader", 2, "runs that module 2 times"),
        ("reader", 0, "runs that module not at all"),
    ],
)
def test_a_wrong_beginning_is_refused(begin: Any, calls: int, text: str) -> None:
    net, (features, indices) = randomise(TwoStage(calls)), frame()
    args = (indices, features[:, None].repeat(1, 3, 1), torch.full((len(features),), 3))
    with pytest.raises(CaptureError, match=text):
        capture(net, args, input=begin)


def test_a_key_of_the_result_wins_over_a_module() -> None:
    net, (features, indices) = detector(), frame()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = net.backbone

        def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
            made = self.dense({"voxel_features": features, "voxel_coords": indices, "batch_size": 1})
            return {"dense": made["spatial_features"]}

    whole = Whole().eval()
    assert capture(whole, (features, indices), "dense")(features, indices).shape == (1, 48, 3, 4)
    level = capture(whole, (features, indices), "dense.conv1")(features, indices)
    assert level[0].shape == (len(indices), 8)


def test_steps_lead_into_what_a_module_returns() -> None:
    net, (features, indices) = detector(), frame()
    graph = capture(
        net, points(features, indices), ("backbone", "multi_scale_3d_features", "x_conv2"), input="vfe"
    )
    assert graph(features, indices)[0].shape[1] == 16
    with pytest.raises(CaptureError, match=r"no output=\('backbone', 'none'\). Available: output='voxels'"):
        capture(net, points(features, indices), ("backbone", "none"), input="vfe")


class InPlace(nn.Module):
    """What a module returned is changed in place by the next one; it is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = spconv.SubMConv3d(4, 4, 3, bias=False, indice_key="a")
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
        x = self.conv(spconv.SparseConvTensor(features, indices, list(GRID), 1))
        x = self.conv(x.replace_feature(self.relu(x.features)))
        x = x.replace_feature(self.relu(x.features))
        return x.dense()


def test_it_is_the_value_of_the_last_call_as_it_was_returned() -> None:
    net, (features, indices) = InPlace().eval(), frame()
    kept: list[torch.Tensor] = []
    handle = net.conv.register_forward_hook(lambda module, args, output: kept.append(output.features.clone()))
    with torch.no_grad():
        net(features, indices)
    handle.remove()
    values, sites = capture(net, (features, indices), "conv")(features, indices)
    assert torch.equal(sites, indices)
    assert bool((kept[-1] < 0).any())
    assert relative(values, kept[-1]) <= 1e-5


def test_a_module_with_hooks_of_its_own_is_refused() -> None:
    net = InPlace().eval()
    net.conv.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(CaptureError, match=r"'conv' \(SubMConv3d\) has forward hooks"):
        capture(net, frame(), "conv")
    assert layers(capture(net, frame()))[0].name == "conv"


def test_messages_name_an_output_before_what_is_not_supported() -> None:
    features, indices = frame()
    with pytest.raises(
        CaptureError, match=r"conv2d in module 'backbone.neck'.*output=\('backbone', 'spatial_f"
    ):
        capture(detector(), points(features, indices), ("backbone", "neck"), input="vfe")
    with pytest.raises(
        CaptureError, match=r"scores.mean\(\).*output='backbone.conv3', what that module returns, can be"
    ):
        capture(detector(), points(features, indices), "boxes", input="vfe")
    # The message tells the truth: that output can be captured.
    graph = capture(detector(), points(features, indices), ("backbone", "spatial_features"), input="vfe")
    assert graph(features, indices).shape == (1, 48, 3, 4)


def test_the_model_keeps_no_hook_and_no_value() -> None:
    net, (features, indices) = detector(), frame()
    batch = points(features, indices)
    capture(net, batch, "backbone.conv3", input="vfe")
    assert set(batch[0]) == {"voxels", "voxel_num_points", "voxel_coords", "batch_size"}
    assert not torch.nn.modules.module._global_forward_hooks
    with torch.no_grad():
        assert net.backbone(net.vfe(*batch))["spatial_features"].shape == (1, 48, 3, 4)


class Selecting(nn.Module):
    """Layers after a selection by values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = block(4, 8, "a"), block(8, 8, "b", 2), block(8, 8, "c")

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
        x = self.second(self.first(spconv.SparseConvTensor(features, indices, list(GRID), 1)))
        mask = x.features[:, 0].sigmoid() > 0.5
        kept = spconv.SparseConvTensor(x.features[mask], x.indices[mask], x.spatial_shape, x.batch_size)
        return self.last(kept)


def test_an_output_that_a_message_names_can_be_captured() -> None:
    net = randomise(Selecting())
    text = r"index in .*at test_module_values\.py:\d+ \(kept = .*rows cannot be chosen.*output='second', what"
    with pytest.raises(CaptureError, match=text):
        capture(net, frame())
    assert [layer.name for layer in layers(capture(net, frame(), "second"))] == ["first.0", "second.0"]


class Both(Selecting):
    """Returns a level that comes before the selection as well."""

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
        chosen = super().forward(features, indices)
        level = self.first(spconv.SparseConvTensor(features, indices, list(GRID), 1))
        return {"level": level, "chosen": chosen}


def test_layers_on_selected_sites_run_on_and_other_outputs_can_be_captured() -> None:
    """A sequence of spconv asks whether there are sites at all, which no trace knows of a selection."""
    net, given = randomise(Both()), frame()
    graph = capture(net, given, "level")
    with torch.no_grad():
        same(graph(*given), net(*given)["level"])


class Stopping(Selecting):
    """Several layers after the selection, and a number of its rows, which no trace has."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = spconv.SparseSequential(*(block(8, 8, f"t{i}") for i in range(4)))

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
        x = self.tail(super().forward(features, indices))
        return x.features[: len(x.features) // 2]


def test_the_output_of_a_message_is_before_all_that_cannot_be_captured() -> None:
    """The modules that ran last read what was selected; what refuses them names the one before."""
    text = r"len\(x\.features\).*output='second', what that module returns, can be captured"
    with pytest.raises(CaptureError, match=text):
        capture(randomise(Stopping()), frame())


HELPER = """
def count(index):
    return int(index.max()) + 1
"""


def test_the_place_is_the_line_of_the_model_that_calls_another_library() -> None:
    library: dict[str, Any] = {"__name__": "other.scatter"}
    exec(compile(HELPER, "/other/scatter.py", "exec"), library)

    class Calling(Selecting):
        def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
            x = self.first(spconv.SparseConvTensor(features, indices, list(GRID), 1))
            return x.features.new_zeros(library["count"](x.indices), 8)

    text = r"at test_module_values\.py:\d+ \(return x\.features\.new_zeros"
    with pytest.raises(CaptureError, match=text):
        capture(randomise(Calling()), frame())


class Writing(Selecting):
    """Writes into a column of its features, and reads them whole."""

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
        x = self.first(spconv.SparseConvTensor(features, indices, list(GRID), 1))
        changed = x.features.clone()
        changed[:, 0] += 1
        return self.second(x.replace_feature(changed))


def test_a_change_through_a_view_is_refused_with_the_lines_of_both() -> None:
    text = r"reads memory that .*, at test_module_values\.py:\d+ \(changed\[:, 0\] \+= 1\), changed in place"
    with pytest.raises(CaptureError, match=text):
        capture(randomise(Writing()), frame())


class Scaling(Selecting):
    """Brings the indices of a level to the grid of the input, in place, as VoxelNeXt does."""

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
        x = self.second(self.first(spconv.SparseConvTensor(features, indices, list(GRID), 1)))
        x.indices[:, 1:] *= 2
        return self.last(x)


def test_indices_that_a_forward_changes_later_are_those_that_the_module_returned() -> None:
    net, given = randomise(Scaling()), frame()
    graph = capture(net, given, "second")
    with torch.no_grad():
        same(graph(*given), net.second(net.first(spconv.SparseConvTensor(*given, list(GRID), 1))))


def test_reading_spconvs_rulebook_is_refused_in_words() -> None:
    class Reading(Selecting):
        def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
            x = self.first(spconv.SparseConvTensor(features, indices, list(GRID), 1))
            return x.indice_dict["a"].indice_pairs

    text = r"test_module_values\.py:\d+ \(return x\.indice_dict.*spconv's rulebook has no 'indice_pairs'"
    with pytest.raises(CaptureError, match=text):
        capture(randomise(Reading()), frame())


def test_a_line_of_spconv_is_none_of_the_users_where_spconv_1_is_a_stand_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files of spconv 1.x run on 2.x with a module of the old name that hands out the new classes."""
    monkeypatch.setitem(sys.modules, "spconv", types.ModuleType("spconv"))
    other = spconv.SubMConv3d(8, 8, (1, 3, 3), indice_key="a", bias=False)
    net = spconv.SparseSequential(block(4, 8, "a"), other)
    x = sparse(*frame())
    with pytest.raises(CaptureError, match=r"shares indice_key 'a'") as caught:
        capture(net.eval(), (x,))
    assert "conv.py" not in str(caught.value)
