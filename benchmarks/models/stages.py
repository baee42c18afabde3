# SPDX-License-Identifier: Apache-2.0
"""One network and output through every stage: capture, spconv, calibration, both exporters, the engine."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

import scn_fx
from benchmarks.models.eager import eager_difference
from scn_fx import quant
from scn_fx.capture.arguments import Arguments
from scn_fx.errors import CompareError, ExportError
from scn_fx.exporting import export_onnx, quiet
from scn_fx.graph import operator_name
from scn_fx.operators.dialects import LIBSPCONV, SCN_FX
from scn_fx.runtime.reference import input_tensors

__all__ = ["ATTENTION", "BY_VALUES", "DENSE", "ON_PURPOSE", "STAGES", "Result", "first_line", "run_stages"]

STAGES = ("capture", "calibrate", "dynamo", "torchscript", "cpu")

BY_VALUES, ATTENTION, DENSE = "selection by values", "attention", "dense layers behind the sparse ones"
ON_PURPOSE = (BY_VALUES, ATTENTION, DENSE)
"""Constructs that scn-fx leaves outside on purpose."""


_FLOAT_ERROR = 1e-3
"""Largest difference of a float graph from spconv, relative to the largest value, that is rounding."""


@dataclass
class Result:
    """A line of the table.

    Attributes:
        network: what ran.
        output: which of its outputs.
        stages: "ok" for each stage that passed; the first that did not is missing, and so are later ones.
        failed: the stage that failed; empty if none did. "spconv" where the captured graph computes
            something else.
        message: the first line of its error.
        place: file and line of scn-fx that refused.
        convolutions, additions: in the captured graph.
        dialect: the narrowest dialect that holds the graph.
        difference: largest difference of the float graph from spconv on the CPU, relative to the largest
            value; None where spconv cannot run the network.
        spconv: why it cannot.
        cuda: "identical", "differs", or "" without a GPU.
        outside: why a refusal is expected: one of `ON_PURPOSE`, or another reason in words.
    """

    network: str
    output: Any
    stages: dict[str, str]
    failed: str = ""
    message: str = ""
    place: str = ""
    convolutions: int = 0
    additions: int = 0
    dialect: str = ""
    difference: float | None = None
    spconv: str = ""
    cuda: str = ""
    outside: str = ""

    @property
    def ok(self) -> bool:
        """Whether every stage passed with the same bits."""
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "output": repr(self.output), "ok": self.ok}


def run_stages(
    name: str,
    model: nn.Module,
    args: Sequence[Any],
    output: Any,
    *,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    frame: Sequence[torch.Tensor] = (),
    cuda: bool = False,
) -> Result:
    """Take one output of a model through all stages; an error ends them and becomes part of the result.

    Args:
        name: for the table.
        model: in evaluation mode.
        args, kwargs: of its forward, holding one frame.
        output: as for `scn_fx.capture`.
        options: further arguments of `scn_fx.capture`.
        frame: what the graph takes, where that is not what `args` hold.
        cuda: whether to run the engine on a GPU as well.
    """
    result = Result(name, output, {})
    with quiet(), tempfile.TemporaryDirectory() as folder:
        graph: fx.GraphModule | None = None
        try:
            graph = scn_fx.capture(model, args, output, kwargs=kwargs, **(options or {}))
            frame = frame or Arguments.of(model, args, kwargs).tensors
            kinds = [operator_name(node) for node in graph.graph.nodes]
            result.convolutions, result.additions = kinds.count("convolution"), kinds.count("add")
            result.stages["capture"] = "ok"
        except Exception as error:
            return _failed(result, "capture", error)
        try:
            result.difference = eager_difference(graph, frame, model, args, kwargs, output, options)
        except Exception as error:
            result.spconv = first_line(error)
        if result.difference is not None and not result.difference <= _FLOAT_ERROR:
            found = f"The float graph differs from spconv by {result.difference:.0e} of its largest value."
            return _failed(result, "spconv", CompareError(found))
        files = {exporter: Path(folder) / f"{exporter}.onnx" for exporter in ("dynamo", "torchscript")}
        steps: list[tuple[str, Callable[[], None]]] = [
            ("calibrate", lambda: _calibrate(graph, frame)),
            ("dynamo", lambda: _export(result, graph, files["dynamo"], "dynamo")),
            ("torchscript", lambda: _export(result, graph, files["torchscript"], "torchscript")),
            ("cpu", lambda: _compare(graph, files["dynamo"], frame)),
        ]
        for stage, step in steps:
            try:
                step()
            except Exception as error:
                return _failed(result, stage, error)
            result.stages[stage] = "ok"
        if cuda:
            result.cuda = _cuda(files["dynamo"], frame, graph)
    return result


def _calibrate(graph: Any, frame: Sequence[torch.Tensor]) -> None:
    quant.calibrate(graph, [tuple(frame)], method="max", progress=False)


def _export(result: Result, graph: Any, path: Path, exporter: str) -> None:
    """Write it in libspconv's dialect, or in ours if that cannot hold it."""
    if not result.dialect:
        try:
            export_onnx(graph, path, exporter, LIBSPCONV)
            result.dialect = LIBSPCONV
            return
        except ExportError:
            result.dialect = SCN_FX
    export_onnx(graph, path, exporter, result.dialect)


def _compare(graph: Any, file: Path, frame: Sequence[torch.Tensor]) -> None:
    found = scn_fx.compare(graph, file, [tuple(frame)], allow_zero=True).check()
    if not found.identical:
        raise CompareError("The engine's results are within the limits, but other bits than the graph's.")


def _cuda(file: Path, frame: Sequence[torch.Tensor], graph: Any) -> str:
    """Whether the GPU engine has the bits of the CPU engine."""
    engines = scn_fx.Engine(file), scn_fx.Engine(file, device="cuda")
    tensors, features, indices = input_tensors(graph, frame, 0)
    arrays = tensors[features].numpy(), tensors[indices].numpy()
    cpu, gpu = (_arrays(engine(*arrays)) for engine in engines)
    pairs = zip(cpu, gpu, strict=True)
    same = all(torch.equal(torch.as_tensor(a), torch.as_tensor(b).cpu()) for a, b in pairs)
    return "identical" if same else "differs"


def _arrays(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [array for part in value for array in _arrays(part)]
    return [value]


def first_line(error: BaseException) -> str:
    """The first line of a message, with the error's class where it is none of ours."""
    text = str(error).strip().splitlines()
    name = "" if type(error).__module__.startswith("scn_fx") else f"{type(error).__name__}: "
    return name + (text[0] if text else "")


def _failed(result: Result, stage: str, error: BaseException) -> Result:
    result.failed, result.message = stage, first_line(error)
    root = Path(scn_fx.__file__).parents[1]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(root)]
    if frames:
        last = frames[-1]
        result.place = f"{Path(last.filename).relative_to(root)}:{last.lineno}"
    return result
