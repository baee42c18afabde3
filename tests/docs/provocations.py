# SPDX-License-Identifier: Apache-2.0
"""What raises each message that a table of a page shows: functions of an empty folder, by the message."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import fx

import quant
from scn_fx.exporting import export_onnx
from scn_fx.peers import Peers
from scn_fx.quant.weights import load_weights
from scn_fx.runtime.file_graph import file_graph
from tests.oracle import builder
from tests.quant.graphs import GraphBuilder, frame, residual

__all__ = ["MESSAGES"]

FRAMES = [frame(seed) for seed in range(5)]
QUIET = {"progress": False}


def calibrated() -> fx.GraphModule:
    graph = residual()
    quant.calibrate(graph, FRAMES, method="max", **QUIET)
    return graph


def dead_layer(folder: Path) -> None:
    graph = residual()
    graph.conv1_0_conv1_bias.fill_(-1e6)
    quant.calibrate(graph, FRAMES, **QUIET)


def nan_points(folder: Path) -> None:
    features, indices = FRAMES[1]
    quant.calibrate(residual(), [FRAMES[0], (features * torch.nan, indices)], **QUIET)


def a_column_is_missing(folder: Path) -> None:
    build = GraphBuilder()
    graph = build.finish(build.dense(build.conv(build.features, "conv_input.0", (5, 4))))
    quant.calibrate(graph, [frame(0, channels=4)], **QUIET)


def large_weight(folder: Path) -> None:
    graph = residual()
    graph.extra_conv_0_weight[1, 1, 1, 1, 1] = 7e4
    quant.calibrate(graph, FRAMES, **QUIET)


def large_weight_behind_calibration(folder: Path) -> None:
    graph = calibrated()
    graph.extra_conv_0_weight[1, 1, 1, 1, 1] = 7e4
    quant.round_weights(graph, FRAMES, **QUIET)


def many_products(folder: Path) -> None:
    build = GraphBuilder()
    x = build.conv(build.features, "a", (3, 1), kernel=(1, 1, 1))
    wide = torch.ones(1, 1, 1, 1, 131_072)
    x = build.conv(x, "wide", (131_072, 1), kernel=(1, 1, 1), weight=wide)
    quant.calibrate(build.finish(x), FRAMES, precision={"wide": "int8"}, **QUIET)


def interrupted(cache: Path) -> Path:
    """The state that Ctrl-C leaves beside a cache."""

    def frames() -> Iterator[Any]:
        yield from FRAMES[:4]
        raise KeyboardInterrupt

    try:
        quant.calibrate(residual(), frames(), cache=cache, **QUIET)
    except KeyboardInterrupt:
        return cache.with_name(f"{cache.name}.part")
    raise AssertionError("the calibration was not interrupted")


def unfinished_cache(folder: Path) -> None:
    quant.load_cache(residual(), interrupted(folder / "c.json"))


def other_frames(folder: Path) -> None:
    interrupted(folder / "c.json")
    quant.calibrate(residual(), FRAMES[::-1], cache=folder / "c.json", resume=True, **QUIET)


def two_processes(gather: Callable[..., Any]) -> None:
    """A calibration as rank 0 of 2, where the other one is what `gather` says."""
    with (
        mock.patch.object(Peers, "current", lambda task, error: Peers(0, 2, task, error)),
        mock.patch("scn_fx.peers._patience", lambda: None),
        mock.patch("torch.distributed.get_backend", lambda: "gloo"),
        mock.patch("torch.distributed.monitored_barrier", gather),
    ):
        quant.calibrate(residual(), FRAMES, **QUIET)


def other_options_elsewhere(folder: Path) -> None:
    def all_gather(found: list[Any], item: tuple[None, tuple[Any, ...]]) -> None:
        found[:] = [item, (None, ("another", *item[1][1:]))]

    with mock.patch("torch.distributed.all_gather_object", all_gather):
        two_processes(lambda **options: None)


def a_process_was_killed(folder: Path) -> None:
    def alone(**options: object) -> None:
        raise RuntimeError("Rank 1 failed to pass monitoredBarrier in 1000 ms")

    two_processes(alone)


def foreign_cache(folder: Path) -> None:
    quant.calibrate(residual(), FRAMES, cache=folder / "c.json", **QUIET)
    quant.load_cache(residual(seed=1), folder / "c.json")


def fraction(folder: Path) -> None:
    quant.calibrate(residual(), FRAMES, percentile=0.9999, **QUIET)


def two_models_in_one_file(folder: Path) -> None:
    weights = torch.nn.Sequential(torch.nn.Linear(3, 2)).state_dict()
    both = {f"{prefix}.{key}": value for prefix in ("student", "teacher") for key, value in weights.items()}
    torch.save(both, folder / "trained.pth")
    load_weights(torch.nn.Sequential(torch.nn.Linear(3, 2)), folder / "trained.pth")


def nothing_calibrated(folder: Path) -> None:
    quant.round_weights(residual(), FRAMES, **QUIET)


def tied_values(folder: Path) -> None:
    build = GraphBuilder()
    quant.equalize(build.finish(build.dense(build.conv(build.features, "only", (3, 4)))), FRAMES, **QUIET)


def another_reference(folder: Path) -> None:
    quant.correct_bias(calibrated(), FRAMES, reference=residual(channels=8), **QUIET)


def divergence(folder: Path) -> None:
    graph = calibrated()
    quant.finetune(graph, copy.deepcopy(graph), FRAMES, lr=1e30, **QUIET)


def retrofitted_twice(folder: Path) -> None:
    export_onnx(residual(), folder / "a.onnx", "torchscript")
    for _ in range(2):
        quant.retrofit(folder / "a.onnx", FRAMES, folder / "a.onnx", method="max", **QUIET)


def layer(name: str, **attributes: Any) -> builder.Piece:
    """A convolution of three channels that takes and gives one value."""
    options = {"input_shape": (6, 12, 12), "output_shape": (6, 12, 12), "padding": (1, 1, 1), "subm": True}
    weight = torch.ones(3, 3, 3, 3, 3).numpy()
    return builder.convolution(name, attributes.pop("x", "features"), f"{name}v", weight, **options)


def one_name_twice(folder: Path) -> None:
    file_graph(builder.build_onnx(layer("a"), builder.node("Relu", "a", ["av"], "rv")))


def no_grid(folder: Path) -> None:
    piece = layer("a")
    kept = [made for made in piece.proto.attribute if made.name != "input_spatial_shape"]
    del piece.proto.attribute[:]
    piece.proto.attribute.extend(kept)
    file_graph(builder.build_onnx(piece))


def foreign_operator(folder: Path) -> None:
    file_graph(builder.build_onnx(layer("a"), builder.node("Softplus", "s", ["av"], "sv")))


def no_precision_of_files(folder: Path) -> None:
    export_onnx(residual(), folder / "a.onnx", "torchscript")
    quant.retrofit(folder / "a.onnx", FRAMES, folder / "b.onnx", precision="fp32", **QUIET)


MESSAGES: dict[tuple[str, str], Callable[[Path], None]] = {
    ("calibrate", "every value was zero in all frames"): dead_layer,
    ("calibrate", "holds NaN or infinite values"): nan_points,
    ("calibrate", "must have 5 channels, ... got 4"): a_column_is_missing,
    ("calibrate", "does not fit in float16"): large_weight,
    ("calibrate", "can overflow int32"): many_products,
    ("calibrate", "not finished"): unfinished_cache,
    ("calibrate", "is not the one that ... has counted"): other_frames,
    ("calibrate", "calibrate different things"): other_options_elsewhere,
    ("calibrate", "has died or does not answer"): a_process_was_killed,
    ("calibrate", "belongs to another graph"): foreign_cache,
    ("calibrate", "Did you mean 99.99?"): fraction,
    ("calibrate", "under several prefixes"): two_models_in_one_file,
    ("improve-accuracy", "no int8 convolution with ranges"): nothing_calibrated,
    ("improve-accuracy", "No value of the graph can be scaled"): tied_values,
    ("improve-accuracy", "no graph of the same layers"): another_reference,
    ("improve-accuracy", "fit in float16"): large_weight_behind_calibration,
    ("improve-accuracy", "Step 12 (counted from 0), lr 0.01: ... lower lr"): divergence,
    ("retrofit", "has ranges already"): retrofitted_twice,
    ("retrofit", "several nodes named"): one_name_twice,
    ("retrofit", "does not say how large the grid is"): no_grid,
    ("retrofit", "is not part of the dialect"): foreign_operator,
    ("retrofit", "nodes are int8 or fp16"): no_precision_of_files,
}
"""By page of docs/how-to and message; `...` is for whatever stands there, a number for another one."""
