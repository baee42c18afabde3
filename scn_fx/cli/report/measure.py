# SPDX-License-Identifier: Apache-2.0
"""Runs an ONNX file on frames, in its own precisions and in float32, and collects what a report shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scn_fx.bench.layers import group_of, stage_medians, totals
from scn_fx.cli.inspect import node_rows
from scn_fx.cli.report.ranges import RangeUse, range_uses
from scn_fx.errors import ArgumentError
from scn_fx.files.onnx_models import read_model
from scn_fx.runtime import ArrayDifference, Engine, NodeTrace, align_sites, compare_arrays
from scn_fx.runtime.comparison import output_list
from scn_fx.runtime.engine import StageTime

__all__ = ["FrameOutputs", "LayerReport", "Measured", "measure"]


@dataclass(frozen=True)
class LayerReport:
    """One node of the file."""

    facts: dict[str, Any]
    """What `inspect` shows of it."""
    inputs: tuple[str, ...]
    """The nodes, or inputs of the network, that it reads."""
    difference: ArrayDifference
    """Its values against those of the same node in float32, over all frames."""
    ranges: tuple[RangeUse, ...]
    milliseconds: float | None
    """Of its stage in the engine; None for a node without one."""
    fused_into: str | None
    """The convolution whose stage computes an Add too."""

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.facts["name"])

    @property
    def precision(self) -> str | None:
        """Arithmetic of a convolution or an Add; None for nodes that have none."""
        found = self.facts["precision"]
        return None if found is None else str(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            **self.facts,
            "inputs": list(self.inputs),
            "difference": self.difference.to_dict(),
            "ranges": [each.to_dict() for each in self.ranges],
            "milliseconds": self.milliseconds,
            "fused_into": self.fused_into,
        }


@dataclass(frozen=True, eq=False)
class FrameOutputs:
    """One frame with what the network makes of it."""

    features: np.ndarray
    indices: np.ndarray
    reference: list[Any]
    """The outputs in float32."""
    result: list[Any]
    """The outputs in the precisions of the file."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What the runs of a file have shown."""

    layers: tuple[LayerReport, ...]
    outputs: dict[str, ArrayDifference]
    """Of the network as it runs in earnest, against float32, by name."""
    stages: list[tuple[StageTime, float]]
    """Of the first frame, with the median of its seconds."""
    totals: dict[str, float]
    """Milliseconds by group of stages, and their total."""
    float_totals: dict[str, float]
    """The same in float32."""
    repeats: int
    voxels: tuple[int, ...]
    """Of each frame."""
    first: FrameOutputs
    metadata: dict[str, str]


def measure(
    engine: Engine,
    single: Engine,
    frames: Iterable[Sequence[Any]],
    repeats: int,
    say: Callable[[str], None],
) -> Measured:
    """Run all frames node by node in both engines, and time the stages on the first.

    Args:
        engine: of the file, in its own precisions.
        single: of the same file, in float32: the reference.
        frames: (features [N, C], indices int32 [N, ndim + 1]) numpy arrays, for each frame.
        repeats: timed runs.
        say: takes a short text as work goes on.

    Raises ArgumentError without frames, or for a file with a name for two nodes; and the engine's errors.
    """
    model = read_model(engine.source)
    names = [str(node["name"] or node["outputs"][0]) for node in model["nodes"]]
    if len(set(names)) != len(names):
        raise ArgumentError(
            "Expected a name of its own for each node of the file, got some twice. Export the file again."
        )
    uses = range_uses(model, names)
    nodes: dict[str, ArrayDifference] = {}
    ends: dict[str, ArrayDifference] = {}
    voxels: list[int] = []
    first: FrameOutputs | None = None
    for number, (features, indices) in enumerate(frames):
        say(f"frame {number + 1}: node by node in float32")
        reference = {each.name: each for each in single.trace(features, indices)}
        for use in (use for each in uses.values() for use in each):
            made = reference.get(use.source)
            use.collect(np.asarray(features, np.float16) if made is None else made.values)
        say(f"frame {number + 1}: node by node in the file's precisions")
        for found in engine.trace(features, indices):
            _add(nodes, found.name, _trace_difference(reference.pop(found.name), found))
        say(f"frame {number + 1}: outputs")
        both = output_list(single(features, indices)), output_list(engine(features, indices))
        for name, a, b in zip(model["outputs"], *both, strict=True):
            _add(ends, name, _difference(name, a, b))
        first = first or FrameOutputs(features, indices, *both)
        voxels.append(len(indices))
    if first is None:
        raise ArgumentError("There are no frames. Give at least one with --frames, or leave --frames out.")
    profiles, float_profiles = (_profiles(each, first, repeats, say) for each in (engine, single))
    stages = stage_medians(profiles)
    return Measured(
        layers=_layers(model, names, nodes, uses, stages, engine.describe()),
        outputs=ends,
        stages=stages,
        totals=totals(profiles),
        float_totals=totals(float_profiles),
        repeats=repeats,
        voxels=tuple(voxels),
        first=first,
        metadata=dict(model["metadata"]),
    )


def _layers(
    model: dict[str, Any],
    names: list[str],
    nodes: dict[str, ArrayDifference],
    uses: dict[str, list[RangeUse]],
    stages: list[tuple[StageTime, float]],
    plan: dict[str, Any],
) -> tuple[LayerReport, ...]:
    times: dict[str, float] = {}
    for stage, seconds in stages:
        if group_of(stage.kind) != "kernel maps" and stage.name in nodes:
            times[stage.name] = times.get(stage.name, 0.0) + seconds * 1e3
    fused = {step["fused_add"]: str(step["name"]) for step in plan["steps"] if step.get("fused_add")}
    made = {out: name for name, node in zip(names, model["nodes"], strict=True) for out in node["outputs"]}
    found = []
    for name, node, facts in zip(names, model["nodes"], node_rows(model), strict=True):
        inputs = [value for value in node["inputs"] if value and value not in model["initializers"]]
        layer = LayerReport(
            facts=facts,
            inputs=tuple(made.get(value, value) for value in inputs),
            difference=nodes[name],
            ranges=tuple(uses.get(name, ())),
            milliseconds=times.get(name),
            fused_into=fused.get(name),
        )
        found.append(layer)
    return tuple(found)


def _profiles(
    engine: Engine, frame: FrameOutputs, repeats: int, say: Callable[[str], None]
) -> list[list[StageTime]]:
    """Profiles of so many runs, after one to warm up."""
    say(f"timing, {engine.precision or 'precisions of the file'}")
    return [engine.profile(frame.features, frame.indices) for _ in range(repeats + 1)][1:]


def _add(found: dict[str, ArrayDifference], name: str, difference: ArrayDifference) -> None:
    found[name] = found[name] + difference if name in found else difference


def _trace_difference(reference: NodeTrace, result: NodeTrace) -> ArrayDifference:
    sides = [e.values if e.indices is None else (e.values, e.indices) for e in (reference, result)]
    return _difference(result.name, *sides)


def _difference(name: str, reference: Any, result: Any) -> ArrayDifference:
    if isinstance(reference, tuple):
        reference, result = align_sites(reference, result, name)
    return compare_arrays(reference, result, name)
