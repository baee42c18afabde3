# SPDX-License-Identifier: Apache-2.0
"""Each pass by itself on small graphs: what it rewrites, what it refuses and why."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.errors import CaptureError
from scn_fx.graph import operator_name
from scn_fx.passes import (
    DeadCode,
    DropChecks,
    DropCopies,
    FoldBatchNorm,
    FoldConstants,
    Functionalise,
    FuseActivation,
    GraphPass,
    LowerLayout,
    LowerOperators,
    NameNodes,
    Verify,
    run_passes,
)
from scn_fx.passes.fold_batch_norm import folded
from scn_fx.passes.nodes import aten_name, set_place

aten, ours = torch.ops.aten, torch.ops.scn_fx
GRID = [4, 4, 4]


class Build:
    """A graph under construction; its inputs are features [N, 4] and indices."""

    def __init__(self) -> None:
        self.graph, self.root = fx.Graph(), torch.nn.Module()
        self.features = self.graph.placeholder("features")
        self.features.meta["val"] = torch.zeros(7, 4)
        self.indices = self.graph.placeholder("indices")
        self.indices.meta["val"] = torch.zeros(7, 4, dtype=torch.int32)
        kwargs = {
            "name": "m",
            "batch_size": 1,
            "spatial_shape": GRID,
            "kernel_size": [1, 1, 1],
            "dilation": [1, 1, 1],
            "output_bound": 100,
        }
        self.map = self.call(ours.subm_map.default, self.indices, **kwargs)

    def call(self, target: Callable[..., Any], *args: Any, at: str = "", **kwargs: Any) -> fx.Node:
        node = self.graph.call_function(target, args, kwargs)
        set_place(node, at, "Module")
        return node

    def parameter(self, name: str, value: torch.Tensor) -> fx.Node:
        self.root.register_buffer(name, value)
        return self.graph.get_attr(name)

    def conv(
        self, x: fx.Node, name: str = "conv", activation: str = "None", weight: fx.Node | None = None
    ) -> fx.Node:
        weight = weight or self.parameter(f"w_{name}", torch.randn(4, 1, 1, 1, 4))
        made = self.call(
            ours.convolution.default, x, weight, None, self.map, name=name, activation=activation
        )
        made.meta["val"] = torch.zeros(7, 4)
        return made

    def norm(self, x: fx.Node, training: bool = False) -> fx.Node:
        count = len(list(self.root.buffers()))
        mean = self.parameter(f"mean_{count}", torch.randn(4))
        variance = self.parameter(f"var_{count}", torch.rand(4) + 0.5)
        return self.call(aten.batch_norm.default, x, None, None, mean, variance, training, 0.1, 1e-3, False)

    def done(self, *outputs: fx.Node) -> fx.GraphModule:
        self.graph.output(outputs[0] if len(outputs) == 1 else outputs)
        return fx.GraphModule(self.root, self.graph)


def names(graph: fx.GraphModule) -> list[str]:
    """Operators of a graph in order, without maps."""
    found = [operator_name(n) or aten_name(n) or n.op for n in graph.graph.nodes]
    return [name for name in found if name not in ("placeholder", "get_attr", "output", "subm_map")]


def test_in_place_operators_become_functions_and_later_readers_see_the_new_value() -> None:
    b = Build()
    conv = b.conv(b.features)
    early = b.call(aten.add.Tensor, conv, b.features)
    relu = b.call(aten.relu_.default, conv)
    late = b.call(aten.add.Tensor, conv, early)
    result = Functionalise()(b.done(late))
    assert result.modified
    assert relu.target is aten.relu.default
    assert late.args == (relu, early)
    assert early.args == (conv, b.features)


# Operators that return their input itself when they have nothing to do; torch decides, not their names.
NAMES_OF_ITS_INPUT: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "dropout": (aten.dropout.default, (0.5, False)),
    "feature_dropout": (aten.feature_dropout.default, (0.5, False)),
    "alpha_dropout": (aten.alpha_dropout.default, (0.5, False)),
    "feature_alpha_dropout": (aten.feature_alpha_dropout.default, (0.5, False)),
    "to": (aten.to.dtype, (torch.float32,)),
    "type_as": (aten.type_as.default, ("itself",)),
    "contiguous": (aten.contiguous.default, ()),
    "view": (aten.view.default, ([7, 4],)),
    "reshape": (aten.reshape.default, ([-1, 4],)),
    "expand": (aten.expand.default, ([7, 4],)),
    "slice": (aten.slice.Tensor, (0, 0, 99)),
    "narrow": (aten.narrow.default, (1, 0, 4)),
    "alias": (aten.alias.default, ()),
    "detach": (aten.detach.default, ()),
    "flatten": (aten.flatten.using_ints, (0, 0)),
    "atleast_2d": (aten.atleast_2d.default, ()),
    "positive": (aten.positive.default, ()),
    "real": (aten.real.default, ()),
    "resolve_conj": (aten.resolve_conj.default, ()),
    "squeeze": (aten.squeeze.dim, (0,)),
}


@pytest.mark.parametrize("name", NAMES_OF_ITS_INPUT)
@pytest.mark.parametrize("direction", ["alias written", "original written"])
def test_writing_into_another_name_of_a_value_writes_into_the_value(name: str, direction: str) -> None:
    target, args = NAMES_OF_ITS_INPUT[name]
    b = Build()
    conv = b.conv(b.features)
    alias = b.call(target, conv, *(conv if argument == "itself" else argument for argument in args))
    written, read = (alias, conv) if direction == "alias written" else (conv, alias)
    b.call(aten.relu_.default, written)
    graph = b.done(b.call(aten.add.Tensor, read, b.features), b.indices)
    run_passes(graph, [Functionalise(), DeadCode()])
    assert names(graph) == ["convolution", "relu", "add"]
    assert [n.args[0].target for n in graph.graph.nodes if aten_name(n) == "add"] == [aten.relu.default]


@pytest.mark.parametrize(
    "target", [aten.dropout_.default, aten.feature_dropout_.default, aten.alpha_dropout_.default]
)
def test_an_operator_that_could_write_and_does_not_is_no_operator(target: Any) -> None:
    b = Build()
    conv = b.conv(b.features)
    dropped = b.call(target, conv, 0.5, False)
    graph = b.done(b.call(aten.add.Tensor, conv, dropped), b.indices)
    run_passes(graph, [Functionalise(), DeadCode()])
    assert names(graph) == ["convolution", "add"]


@pytest.mark.parametrize("copy", [aten.clone.default, aten.mul.Tensor])
def test_writing_into_a_copy_leaves_the_value(copy: Any) -> None:
    b = Build()
    conv = b.conv(b.features)
    copied = b.call(copy, conv, *([] if copy is aten.clone.default else [1.0]))
    b.call(aten.relu_.default, copied)
    total = b.call(aten.add.Tensor, conv, copied)
    Functionalise()(b.done(total))
    first, second = total.args
    assert first is conv
    assert second.target is aten.relu.default
    assert second.args == (copied,)


def test_a_round_trip_through_other_shapes_is_the_value_itself() -> None:
    b = Build()
    conv = b.conv(b.features)
    back = b.call(aten.squeeze.dim, b.call(aten.unsqueeze.default, conv, 0), 0)
    graph = b.done(b.call(aten.relu.default, back), b.indices)
    run_passes(graph, [Functionalise(), DeadCode()])
    assert names(graph) == ["convolution", "relu"]


def test_a_view_that_was_written_through_another_shape_is_refused_where_it_is_needed() -> None:
    b = Build()
    source = b.conv(b.features)
    b.call(aten.relu_.default, b.call(aten.view.default, source, [28]))
    needed = b.call(aten.add.Tensor, source, b.features)
    graph = b.done(needed, b.indices)
    run_passes(graph, [Functionalise(), DeadCode(), LowerOperators(), NameNodes()])
    with pytest.raises(CaptureError, match=r"add.*reads memory that relu_.*changed in place.*another shape"):
        Verify()(graph)


def test_writing_into_a_parameter_is_refused_where_it_is_needed() -> None:
    b = Build()
    weight = b.parameter("w", torch.randn(4, 1, 1, 1, 4))
    b.call(aten.mul_.Tensor, weight, 2.0)
    graph = b.done(b.conv(b.features, weight=weight), b.indices)
    run_passes(graph, [Functionalise(), DeadCode()])
    with pytest.raises(CaptureError, match=r"mul_.*parameters or buffers.*remembers nothing"):
        Verify()(graph)


def test_writing_is_no_obstacle_where_the_output_does_not_need_it() -> None:
    b = Build()
    conv = b.conv(b.features)
    other = b.conv(b.features, "other")
    b.call(aten.fill_.Scalar, b.call(aten.select.int, other, 0, 0), 1.0)
    b.call(aten.detach_.default, other)
    graph = b.done(conv, b.indices)
    run_passes(graph, [Functionalise(), DeadCode(), Verify()])
    assert names(graph) == ["convolution"]


def test_an_in_place_operator_without_another_form_is_refused_where_it_is_needed() -> None:
    b = Build()
    conv = b.conv(b.features)
    b.call(aten.resize_.default, conv, [4, 7])
    graph = b.done(b.call(aten.relu.default, conv), b.indices)
    run_passes(graph, [Functionalise(), DeadCode(), LowerOperators(), NameNodes()])
    with pytest.raises(CaptureError, match=r"resize_.*changes a value in place|resize"):
        Verify()(graph)


def test_checks_and_copies_vanish() -> None:
    b = Build()
    conv = b.conv(b.features)
    b.call(aten._assert_scalar.default, True, "message")
    copied = b.call(aten.clone.default, conv)
    copied.meta["val"] = torch.zeros(7, 4)
    graph = b.done(copied)
    for one in (DropChecks, DropCopies):
        assert one()(graph).modified
        assert not one()(graph).modified
    assert names(graph) == ["convolution"]


def test_dropout_in_training_stays() -> None:
    b = Build()
    graph = b.done(b.call(aten.dropout.default, b.conv(b.features), 0.5, True))
    run_passes(graph, [Functionalise(), DropChecks(), DropCopies()])
    assert names(graph) == ["convolution", "dropout"]


def test_constants_are_computed() -> None:
    b = Build()
    stored = torch.randn(4, 4)
    weight = b.call(aten.view.default, b.call(aten.t.default, b.parameter("w", stored)), [4, 1, 1, 1, 4])
    graph = b.done(b.conv(b.features, weight=weight))
    assert FoldConstants()(graph).modified
    assert names(graph) == ["convolution"]
    conv = next(n for n in graph.graph.nodes if operator_name(n) == "convolution")
    assert torch.equal(getattr(graph, conv.args[1].target), stored.t().reshape(4, 1, 1, 1, 4))


def test_the_fold_is_exact_to_half_a_unit() -> None:
    torch.manual_seed(3)
    weight, bias = torch.randn(8, 3, 3, 3, 4), torch.randn(8)
    mean, variance, gamma, beta = torch.randn(8), torch.rand(8) + 0.1, torch.randn(8), torch.randn(8)
    new_weight, new_bias = folded(weight, bias, mean, variance, gamma, beta, 1e-3)
    x = torch.randn(50, 3, 3, 3, 4, dtype=torch.float64)
    plain = torch.einsum("nzyxi,ozyxi->no", x, weight.double()) + bias.double()
    wide = [v.double() for v in (mean, variance, gamma, beta)]
    expected = torch.nn.functional.batch_norm(plain, wide[0], wide[1], wide[2], wide[3], eps=1e-3)
    found = torch.einsum("nzyxi,ozyxi->no", x, new_weight.double()) + new_bias.double()
    assert new_weight.dtype == torch.float32
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-7


def test_batch_norm_folds_once_and_keeps_a_shared_weight() -> None:
    b = Build()
    weight = b.parameter("w", torch.randn(4, 1, 1, 1, 4))
    kept = b.root.w.clone()
    first = b.norm(b.conv(b.features, "a", weight=weight))
    graph = b.done(b.norm(b.conv(first, "b", weight=weight)))
    result = FoldBatchNorm()(graph)
    assert result.modified
    assert result.notes == ()
    assert names(graph) == ["convolution", "convolution"]
    assert torch.equal(graph.w, kept)
    own = [n.args[1].target for n in graph.graph.nodes if operator_name(n) == "convolution"]
    assert not torch.equal(getattr(graph, own[0]), getattr(graph, own[1]))


def _not_finite(b: Build) -> fx.GraphModule:
    norm = b.norm(b.conv(b.features))
    getattr(b.root, norm.args[4].target).fill_(-1.0)
    return b.done(norm)


def test_a_batch_norm_that_cannot_fold_says_why() -> None:
    graph, reason = _not_finite(Build()), "a variance is negative"
    result = FoldBatchNorm()(graph)
    assert not result.modified
    (note,) = result.notes
    assert reason in note
    assert "FoldBatchNorm: batch_norm" in note
    with pytest.raises(CaptureError, match=reason):
        run_passes(graph, [LowerOperators(), NameNodes(), Verify()])


def test_a_batch_norm_in_training_is_an_error() -> None:
    b = Build()
    with pytest.raises(CaptureError, match="statistics of the frame"):
        FoldBatchNorm()(b.done(b.norm(b.conv(b.features), training=True)))


def test_relu_is_fused_into_convolution_and_addition() -> None:
    b = Build()
    conv = b.call(aten.relu.default, b.conv(b.features), at="block")
    added = b.call(aten.add.Tensor, b.conv(conv, "second"), conv, at="block")
    graph = b.done(b.call(aten.relu.default, added, at="block"))
    notes = run_passes(graph, [LowerOperators(), FuseActivation(), NameNodes()])
    assert notes == ()
    assert names(graph) == ["convolution", "convolution", "add"]
    add = next(n for n in graph.graph.nodes if operator_name(n) == "add")
    assert add.kwargs == {"name": "block.add", "activation": "ReLU", "activation_name": "block.relu"}
    assert add.args[0].kwargs["name"] == "second"


def test_relu_stays_where_the_value_before_it_is_read() -> None:
    b = Build()
    conv = b.conv(b.features)
    relu = b.call(aten.relu.default, conv)
    graph = b.done(b.call(aten.add.Tensor, conv, relu), b.indices)
    notes = run_passes(graph, [LowerOperators(), FuseActivation(), NameNodes(), DeadCode(), Verify()])
    assert names(graph) == ["convolution", "relu", "add"]
    assert len(notes) == 1
    assert "also read by add" in notes[0]


def test_relu_of_the_input_stays() -> None:
    b = Build()
    graph = b.done(b.conv(b.call(aten.relu.default, b.features)), b.indices)
    notes = run_passes(graph, [LowerOperators(), FuseActivation(), NameNodes(), DeadCode(), Verify()])
    assert names(graph) == ["relu", "convolution"]
    assert "follows neither" in notes[0]


@pytest.mark.parametrize(
    ("target", "args", "kind", "dims"),
    [
        (aten.view.default, ([1, 16, 4, 4],), "reshape", [1, 16, 4, 4]),
        (aten.flatten.using_ints, (1, 2), "reshape", [1, 16, 4, 4]),
        (aten.unsqueeze.default, (0,), "reshape", [1, 1, 4, 4, 4, 4]),
        (aten.permute.default, ([0, 1, -1, 2, 3],), "transpose", [0, 1, 4, 2, 3]),
        (aten.transpose.int, (-1, 1), "transpose", [0, 4, 2, 3, 1]),
        (aten.movedim.int, (4, 2), "transpose", [0, 1, 4, 2, 3]),
        (aten.movedim.intlist, ([4, 0], [2, 0]), "transpose", [0, 1, 4, 2, 3]),
        (aten.movedim.intlist, ([1, 2], [4, 1]), "transpose", [0, 2, 3, 4, 1]),
    ],
)
def test_layout_operators_get_constant_dims(
    target: Any, args: tuple[Any, ...], kind: str, dims: list[int]
) -> None:
    b = Build()
    dense = b.call(
        ours.scatter_dense.default, b.conv(b.features), b.indices,
        name="", format="zyx", batch_size=1, spatial_shape=GRID,
    )  # fmt: skip
    moved = b.call(target, dense, *args)
    example = torch.randn(1, 4, *GRID)
    moved.meta["val"] = expected = target(example, *args)
    graph = b.done(moved)
    run_passes(graph, [LowerLayout(), NameNodes(), Verify()])
    assert names(graph) == ["convolution", "scatter_dense", kind]
    assert moved.kwargs == {"name": f"dense.{kind}", "dims": dims}
    assert torch.equal(moved.target(example, **moved.kwargs), expected)


def test_verification_finds_features_of_other_sites() -> None:
    b = Build()
    strided = {"stride": [2] * 3, "padding": [0] * 3, "dilation": [1] * 3, "kernel_size": [1] * 3}
    shapes = {"input_spatial_shape": GRID, "output_spatial_shape": [2] * 3}
    made = b.call(
        ours.conv_map.default, b.indices,
        name="down", batch_size=1, transposed=False, output_bound=9, **strided, **shapes,
    )  # fmt: skip
    sites = b.call(operator.getitem, made, 0)
    dense = b.call(
        ours.scatter_dense.default, b.conv(b.features), sites,
        name="dense", format="zyx", batch_size=1, spatial_shape=[2] * 3,
    )  # fmt: skip
    with pytest.raises(CaptureError, match=r"'dense' combines values of different sites.*'indices'.*'down'"):
        Verify()(b.done(dense))


def test_verification_wants_unique_names_and_a_known_output() -> None:
    b = Build()
    graph = b.done(b.conv(b.conv(b.features, "a"), "a"), b.indices)
    with pytest.raises(CaptureError, match="unique"):
        Verify()(graph)
    b = Build()
    with pytest.raises(CaptureError, match="output must be"):
        Verify()(b.done(b.conv(b.features)))


def test_a_pass_checks_before_it_works() -> None:
    class Grumpy(GraphPass):
        def requires(self, graph: fx.GraphModule) -> None:
            raise CaptureError("not this one")

        def call(self, graph: fx.GraphModule) -> bool:
            raise AssertionError("must not run")

    with pytest.raises(CaptureError, match="not this one"):
        Grumpy()(_not_finite(Build()))


def test_dead_code_goes_and_inputs_stay() -> None:
    b = Build()
    b.conv(b.features)
    graph = b.done(b.features)
    assert DeadCode()(graph).modified
    assert [n.op for n in graph.graph.nodes] == ["placeholder", "placeholder", "output"]
