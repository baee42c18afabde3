# SPDX-License-Identifier: Apache-2.0
"""`scn_fx.compare`: a captured graph against the engine that runs its ONNX file, node by node."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scn_fx.errors import CompareError, MissingPackageError
from scn_fx.files.onnx_models import read_model
from scn_fx.runtime.difference import ArrayDifference, SiteMismatch, align_sites, compare_arrays
from scn_fx.runtime.engine import Engine
from scn_fx.runtime.limits import ARITHMETIC_TYPES, Arithmetic, Limits, default_limits
from scn_fx.runtime.report import Comparison, NodeComparison

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from scn_fx.runtime.reference import Value

__all__ = ["compare", "output_list"]


def compare(
    graph: GraphModule,
    engine: Engine | str | os.PathLike[str] | bytes,
    frames: Iterable[Sequence[Any]],
    *,
    limits: Limits | None = None,
    nodes: bool = True,
    allow_zero: bool = False,
    on_step: Callable[[str], None] | None = None,
) -> Comparison:
    """Runs both on the same frames and compares every ONNX node, and the outputs.

    The engine runs each frame twice: node by node, and, for the outputs, as it runs in earnest (fused).
    Features are rounded to float16 for both, as the engine requires; sparse values are compared site by site.

    Args:
        graph: a captured graph, float or calibrated: the reference. It runs with the precisions that it has.
        engine: an engine, or the ONNX file of this graph (path or bytes).
        frames: the tensors that the graph takes, for each frame: features float16 or float32 [N, C] and
            indices int32 [N, 4] (of a 2D network [N, 3]), as numpy arrays or CPU tensors.
        limits: what to accept; None derives them from the precisions of both sides (`default_limits`): the
            same bits where the arithmetic is exact.
        nodes: False compares the outputs alone.
        allow_zero: accept values that are zero throughout, whatever the limits say.
        on_step: called with a short text as work goes on, for a progress display.

    Raises:
        CompareError: no frames, frames that do not fit the graph, or a file with other nodes than the graph.
        OverflowedError: a layer does not fit in float16, on either side; and the engine's other errors.
    """
    try:
        from scn_fx.runtime.reference import Reference, input_tensors
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingPackageError.of("torch", "torch", "scn_fx.compare") from error

    began = time.perf_counter()
    say = on_step or (lambda text: None)
    runner = engine if isinstance(engine, Engine) else Engine(engine)
    reference = Reference(graph)
    file = _FileNodes(runner)
    file.check(reference.names)
    file.check_dimensions(reference.ndim)
    chosen = limits or default_limits(reference.arithmetic, file.arithmetic)
    table, ends = _Table(), _Table()
    count = sites = 0
    for number, frame in enumerate(frames):
        tensors, features, indices = input_tensors(graph, frame, number)
        arrays = tensors[features].numpy(), tensors[indices].numpy()
        say(f"frame {number + 1}: engine")
        traced = {entry.name: entry for entry in runner.trace(*arrays)} if nodes else {}
        results = output_list(runner(*arrays))

        def observe(name: str, value: Value, traced: dict[str, Any] = traced, number: int = number) -> None:
            say(f"frame {number + 1}: {name}")
            entry = traced.pop(name)  # frees the engine's copy
            table.add(name, value.values, value.indices, entry.values, entry.indices)

        say(f"frame {number + 1}: graph")
        outputs = reference.outputs(tensors, observe if nodes else None)
        if len(outputs) != len(results):
            raise CompareError(
                f"The graph has {len(outputs)} outputs, the file {len(results)}. Export the graph again."
            )
        for name, value, result in zip(file.outputs, outputs, results, strict=True):
            values, rows = result if isinstance(result, tuple) else (result, None)
            ends.add(name, value.values, value.indices, values, rows)
        count += 1
        sites += len(arrays[1])
    if count == 0:
        raise CompareError("There are no frames to compare on. Pass at least one: [(features, indices)].")
    if allow_zero or sites == 0:  # without voxels every map is rightly zero
        chosen = replace(chosen, allow_zero=True)
    names = reference.names if nodes else []
    return Comparison(
        nodes=tuple(table.entry(name, *file.kinds[name], chosen) for name in names),
        outputs=tuple(ends.entry(name, "output", "", chosen) for name in file.outputs),
        limits=chosen,
        frames=count,
        sites=sites,
        seconds=time.perf_counter() - began,
    )


class _FileNodes:
    """What an engine's file says about its nodes."""

    def __init__(self, engine: Engine) -> None:
        file = read_model(engine.source)
        single = engine.precision
        self._ndim = engine.ndim
        shapes = {name: entry["shape"] for name, entry in file["initializers"].items()}
        self.outputs: list[str] = list(file["outputs"])
        self.arithmetic: dict[str, Arithmetic] = {}
        self.kinds: dict[str, tuple[str, str]] = {}
        for node in file["nodes"]:
            name, kind, attributes = node["name"] or node["outputs"][0], node["op_type"], node["attributes"]
            if name in self.kinds:
                raise CompareError(
                    f"The file has two nodes named {name!r}, and nodes are matched by name. Export the graph "
                    "again."
                )
            self.kinds[name] = (kind, "")
            if kind in ARITHMETIC_TYPES:
                # Without the attribute an engine computes in float16, as libspconv does.
                precision = single or attributes.get("precision", "fp16")
                result = single or attributes.get("output_precision", "fp16")
                channels = shapes[node["inputs"][1]][-1] if kind == "SparseConvolution" else None
                self.arithmetic[name] = Arithmetic(precision, result, channels)
                self.kinds[name] = (kind, precision)

    def check(self, names: list[str]) -> None:
        """Raises CompareError unless the file has exactly the nodes `names`."""
        missing = [name for name in names if name not in self.kinds]
        extra = [name for name in self.kinds if name not in names]
        if missing or extra:
            raise CompareError(
                f"The file is not an export of this graph: it lacks {_some(missing)} of the graph's "
                f"{len(names)} nodes and has {_some(extra)} others. Nodes are matched by name: "
                "export the graph again."
            )

    def check_dimensions(self, ndim: int) -> None:
        """Raises CompareError unless the file says that it has as many dimensions as the graph."""
        if self._ndim != ndim:
            raise CompareError(
                f"The graph has {ndim} dimension(s), the file records {self._ndim} (scn_fx.ndim in its "
                "metadata). torch.onnx.export(dynamo=False) has no place for it: add it with "
                "scn_fx.onnx.write_metadata(path, graph), or export with dynamo=True."
            )


def _some(names: list[str]) -> str:
    return f"{len(names)} ({names[0]}{', ...' if len(names) > 1 else ''})" if names else "0"


class _Table:
    """Differences by name, summed over frames."""

    def __init__(self) -> None:
        self._differences: dict[str, ArrayDifference] = {}
        self._broken: dict[str, str] = {}

    def add(self, name: str, values: Any, rows: Any, others: Any, other_rows: Any) -> None:
        """Compare one value of one frame."""
        try:
            if (rows is None) != (other_rows is None):
                raise SiteMismatch(f"{name}: one side is a dense map, the other one sparse.")
            if rows is not None:
                values, others = align_sites((values, rows), (np.asarray(others), other_rows), name)
            difference = compare_arrays(values, others, name)
        except CompareError as error:
            self._broken.setdefault(name, str(error))
            return
        earlier = self._differences.get(name)
        self._differences[name] = difference if earlier is None else earlier + difference

    def entry(self, name: str, op_type: str, precision: str, limits: Limits) -> NodeComparison:
        """The finished row of `name`."""
        difference = self._differences.get(name)
        failures = limits.failures(difference) if difference else ()
        if name in self._broken:
            failures = (self._broken[name], *failures)
        return NodeComparison(name, op_type, precision, difference, failures)


def output_list(results: Any) -> list[Any]:
    """The outputs of an engine call on numpy arrays as a list; a pair (features, indices) is one output."""
    if not isinstance(results, tuple):
        return [results]
    if len(results) == 2 and isinstance(results[1], np.ndarray) and results[1].dtype == np.int32:
        return [results]
    return list(results)
