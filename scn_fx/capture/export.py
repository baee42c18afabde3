# SPDX-License-Identifier: Apache-2.0
"""torch.export of the redirected model, as a GraphModule whose parameters are attributes."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from scn_fx.capture.arguments import Arguments
from scn_fx.capture.explain import explanation, line_of_trace, place
from scn_fx.capture.frame_values import FrameValues
from scn_fx.capture.inline import Inlining
from scn_fx.capture.module_values import check_begins, leave_modules, module_values
from scn_fx.capture.outputs import Path, available, select
from scn_fx.capture.redirect import redirected
from scn_fx.capture.state import State
from scn_fx.capture.tracing import Tracing
from scn_fx.errors import CaptureError, MissingPackageError
from scn_fx.graph_nodes import values_of
from scn_fx.passes.module_marks import set_line
from scn_fx.passes.nodes import set_changed, set_place

__all__ = ["exported_graph"]

_MODEL = "model"


class _Program(nn.Module):
    """The model as torch.export sees it: tensors in, the chosen outputs out, each as a tuple."""

    def __init__(
        self, model: nn.Module, inputs: Arguments, paths: tuple[Path, ...], tracing: Tracing
    ) -> None:
        super().__init__()
        self.model = model
        self.training = False  # not eval(): that would write into the modules of the model
        # In a tuple, for an attribute that is a module would be a second name of the model.
        self._context = (model, inputs, paths, tracing)

    def forward(self, *tensors: torch.Tensor) -> Any:
        model, inputs, paths, tracing = self._context
        args, kwargs = inputs.rebuild(tensors)
        state = State(model)
        try:
            with FrameValues(tracing, tensors):
                result = self.model(*args, **kwargs)
        except Exception as error:
            if not _known_already(paths, tracing):
                raise _Stopped from error
            tracing.stopped = error
            leave_modules(error)
            result = {}
            tracing.notes.append(
                f"The forward could not be followed beyond {place(error, tracing) or 'the outputs'}, which "
                "comes after the outputs; what follows was not looked at."
            )
        finally:
            tracing.reassigned |= state.reassigned()
            state.restore()
        tracing.outputs = available(result)
        check_begins(tracing)
        chosen = tuple(select(result, path, tracing.returned) for path in paths)
        tracing.selected = [len(tensors) for tensors in chosen]
        return chosen


def _known_already(paths: tuple[Path, ...], tracing: Tracing) -> bool:
    """Whether every output is what a module has returned, so that the rest of the forward does not matter."""
    begun = tracing.begin is None or tracing.began == 1
    return begun and all(path and path[0] in tracing.returned for path in paths)


class _Stopped(Exception):
    """The forward raised an error, which is the cause.

    torch would hang the unfinished program on the error itself, and print it to stderr.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "partial_fx_graph":
            super().__setattr__(name, value)


def exported_graph(
    model: nn.Module, inputs: Arguments, paths: tuple[Path, ...], tracing: Tracing
) -> fx.GraphModule:
    """Export the model: a graph with placeholders for `inputs`, `get_attr` for parameters and buffers.

    Every node knows the module that made it (`scn_fx.passes.nodes.module_path`). The model's Python state is
    what it was, after an error too.

    Raises:
        CaptureError: the model does something that cannot be captured.
    """
    program = _Program(model, inputs, paths, tracing)
    handled = sys.exc_info()[1]
    state = State(model)  # torch.export gives every list and dict of a module's attributes back as a copy
    try:
        with redirected(tracing), module_values(tracing), torch.no_grad(), _quiet():
            exported = torch.export.export(
                program, inputs.tensors, dynamic_shapes=(inputs.dynamic_shapes(),), strict=False
            )
    except (CaptureError, MissingPackageError):
        raise
    except Exception as error:
        # What torch makes of a forward that stopped, if anything, is no news.
        cause = (
            error.__cause__ if isinstance(error, _Stopped) and error.__cause__ else tracing.stopped or error
        )
        if isinstance(cause, CaptureError | MissingPackageError):
            raise cause from None
        raise CaptureError(explanation(model, cause, tracing, inputs.numbers(), handled)) from cause
    finally:
        state.restore()
    return _with_attributes(exported, inputs.names, tracing)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch reports about its own tracing; errors still come as exceptions."""
    # torch's loggers have levels and handlers of their own; a filter on each serves this thread alone.
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "torch"]
    loggers = [logging.getLogger(name) for name in ("torch", *names)]
    hide = _HideThread()
    for log in loggers:
        log.addFilter(hide)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log in loggers:
            log.removeFilter(hide)


class _HideThread(logging.Filter):
    """Drops the records of the thread that made the filter."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


def _with_attributes(
    exported: torch.export.ExportedProgram, names: tuple[str, ...], tracing: Tracing
) -> fx.GraphModule:
    """Turn the lifted parameters of an exported program back into attributes, and name its inputs."""
    kinds = torch.export.graph_signature.InputKind
    root = nn.Module()
    graph = fx.Graph()
    values: dict[fx.Node, Any] = {}
    specs = iter(exported.graph_signature.input_specs)
    free_names = iter(names)
    stored = {**dict(exported.named_parameters()), **dict(exported.named_buffers()), **exported.constants}
    for count, node in enumerate(exported.graph_module.graph.nodes):
        if node.op != "placeholder":
            continue
        spec = next(specs)
        if spec.kind == kinds.USER_INPUT:
            made = graph.placeholder(next(free_names))
        else:
            attribute = f"stored_{count}"
            root.register_buffer(attribute, stored[spec.target])
            made = graph.get_attr(attribute)
            name = str(spec.target).removeprefix(f"{_MODEL}.")
            if name in tracing.reassigned:
                set_changed(made, name)
        made.meta["val"] = node.meta.get("val")
        values[node] = made

    def copied(node: fx.Node) -> fx.Node:
        made = graph.node_copy(node, values.__getitem__)
        made.meta = {"val": node.meta.get("val")}
        path, cls = _place(node)
        set_place(made, tracing.canonical(path) if path else "", cls)
        set_line(made, line_of_trace(str(node.meta.get("stack_trace") or "")))
        return made

    program = Inlining(graph, values, copied)
    program.run(exported.graph_module)
    _nest(graph, tracing.selected)
    tracing.notes += dict.fromkeys(program.notes)
    return fx.GraphModule(root, graph, class_name="CapturedGraph")


def _nest(graph: fx.Graph, counts: list[int]) -> None:
    """Let the output node hold a tuple for each output again; torch.export hands out one flat tuple."""
    end = graph.output_node()
    flat = iter(values_of(end.args[0]))
    end.args = (tuple(tuple(next(flat) for _ in range(count)) for count in counts),)


def _place(node: fx.Node) -> tuple[str, str]:
    """Path (within the model) and class name of the innermost module that made the node."""
    stack = node.meta.get("nn_module_stack")
    # torch adds an entry of its own for sizes that it computes.
    entries = [
        (path, cls) for path, cls in (stack or {}).values() if path.split(".")[0].split("@")[0] == _MODEL
    ]
    if not entries:
        return "", ""
    path, cls = entries[-1]
    path = path.split("@")[0]
    path = "" if path == _MODEL else path.removeprefix(f"{_MODEL}.")
    name = cls if isinstance(cls, str) else cls.__name__
    return path, name.rsplit(".", 1)[-1]
