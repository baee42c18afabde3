# SPDX-License-Identifier: Apache-2.0
"""Choosing an output, and the arguments that become inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.capture import capture
from scn_fx.errors import CaptureError, CaptureWarning
from scn_fx.graph import layers
from tests.capture.frames import GRID, frame, sparse


class Pair(NamedTuple):
    dense: Any
    levels: Any


class Nested(nn.Module):
    """Returns (dense, [sparse, {"a": sparse, "size": 3}]) as a named tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.first = spconv.SubMConv3d(4, 4, 3, bias=False, indice_key="a")
        self.second = spconv.SubMConv3d(4, 6, 3, bias=False, indice_key="a")

    def forward(self, features: torch.Tensor, coors: torch.Tensor, *, batch_size: int = 1) -> Pair:
        x = spconv.SparseConvTensor(features, coors, list(GRID), batch_size)
        first = self.first(x)
        second = self.second(first)
        return Pair(second.dense(), [first, {"a": second, "size": 3, "features": second.features}])


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (0, ["first", "second", "dense"]),
        ("dense", ["first", "second", "dense"]),
        ((1, 0), ["first"]),
        ((1, -2), ["first"]),
        ([(1, 1, "a")], ["first", "second"]),
        (("levels", 1, "features"), ["first", "second"]),
    ],
)
def test_an_output_is_found_by_its_path(output: Any, names: list[str]) -> None:
    features, indices = frame()
    graph = capture(Nested().eval(), (features, indices), output)
    assert [layer.name for layer in layers(graph)] == names
    result = graph(features, indices)
    if names[-1] == "dense":
        assert result.shape == (1, 6, *GRID)
    else:
        assert torch.equal(result[1], indices)


@pytest.mark.parametrize("output", [2, "nothing", (1, 5), (1, 1, "b"), (0, 0), (1, 1, "size"), 1])
def test_a_wrong_output_lists_the_available_ones(output: Any) -> None:
    with pytest.raises(
        CaptureError, match=r"(?s)output=.*Available: output=0: .*output=\(1, 1, 'a'\)|no output"
    ):
        capture(Nested().eval(), frame(), output)
    with pytest.raises(CaptureError, match=r"\(1, 1, 'a'\): sparse tensor of 6 channels"):
        capture(Nested().eval(), frame(), output)


@pytest.mark.parametrize("output", [None, 1.5, True, (0, None)])
def test_an_output_of_another_type_is_refused(output: Any) -> None:
    with pytest.raises(CaptureError, match="index, a key"):
        capture(Nested().eval(), frame(), output)


def test_inputs_are_named_after_the_forward() -> None:
    graph = capture(Nested().eval(), frame())
    assert [node.name for node in graph.graph.nodes if node.op == "placeholder"] == ["features", "coors"]


def test_unused_tensors_stay_inputs_in_their_order() -> None:
    class WithPoints(Nested):
        def forward(self, batch: dict[str, Any]) -> Any:
            return super().forward(batch["voxel features"], batch["coors"])

    features, indices = frame()
    points = torch.zeros(1000, 5)
    with pytest.warns(CaptureWarning, match="does not read points of its args"):
        graph = capture(
            WithPoints().eval(), ({"points": points, "voxel features": features, "coors": indices},)
        )
    inputs = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
    assert inputs == ["points", "voxel_features", "coors"]
    assert graph(points[:7], features, indices).shape == (1, 6, *GRID)


def test_a_model_of_one_output_needs_no_choice() -> None:
    model = spconv.SparseSequential(spconv.SubMConv3d(4, 4, 3, bias=False)).eval()
    features, indices = capture(model, (sparse(*frame()),))(*frame())
    assert features.shape == (len(indices), 4)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "no tensors"),
        ((torch.zeros(5, 4),), "must hold an example frame"),
        ((torch.zeros(5, 4), torch.zeros(6, 4, dtype=torch.int32)), "of equal length"),
        ((torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.int32)), "at least 2 voxels"),
        (torch.zeros(5, 4), "must be a tuple"),
    ],
)
def test_arguments_without_a_frame_are_refused(args: Any, text: str) -> None:
    with pytest.raises(CaptureError, match=text):
        capture(Nested().eval(), args)


def test_options_are_checked() -> None:
    with pytest.raises(CaptureError, match="axes"):
        capture(Nested().eval(), frame(), axes="yxz")
    with pytest.raises(CaptureError, match="output_bound"):
        capture(Nested().eval(), frame(), output_bound=0)
    with pytest.raises(CaptureError, match=r"torch\.nn\.Module"):
        capture(lambda x: x, frame())
    assert layers(capture(Nested().eval(), frame(), output_bound=77))[0].output_bound == 77


def test_the_package_is_the_function_too() -> None:
    import scn_fx.capture.redirect  # binds scn_fx.capture to the package

    assert scn_fx.capture.redirect is not None
    assert layers(scn_fx.capture(Nested().eval(), frame()))[0].name == "first"
