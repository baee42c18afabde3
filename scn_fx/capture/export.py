# SPDX-License-Identifier: Apache-2.0
"""torch.export of the redirected model, as a GraphModule whose parameters are attributes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from scn_fx.capture.arguments import Arguments
from scn_fx.capture.outputs import select
from scn_fx.capture.redirect import redirected
from scn_fx.capture.tracing import Tracing
from scn_fx.errors import CaptureError, MissingPackageError, ScnError
from scn_fx.passes.nodes import set_place

__all__ = ["exported_graph"]

_MODEL = "model"


class _Program(nn.Module):
    """The model as torch.export sees it: tensors in, the chosen output out."""

    def __init__(self, model: nn.Module, inputs: Arguments, path: tuple[Any, ...]) -> None:
        super().__init__()
        self.model = model
        self.training = False  # not eval(): that would write into the modules of the model
        self._inputs, self._path = inputs, path

    def forward(self, *tensors: torch.Tensor) -> Any:
        return select(self.model(*self._inputs.rebuild(tensors)), self._path)


def exported_graph(
    model: nn.Module, inputs: Arguments, path: tuple[Any, ...], tracing: Tracing
) -> fx.GraphModule:
    """Export the model: a graph with placeholders for `inputs`, `get_attr` for parameters and buffers.

    Every node knows the module that made it (`scn_fx.passes.nodes.module_path`).

    Raises:
        CaptureError: the model does something that cannot be captured.
    """
    program = _Program(model, inputs, path)
    try:
        with redirected(tracing), torch.no_grad(), _quiet():
            exported = torch.export.export(
                program, inputs.tensors, dynamic_shapes=(inputs.dynamic_shapes(),), strict=False
            )
    except (CaptureError, MissingPackageError):
        raise
    except Exception as error:
        raise CaptureError(_of_ours(error) or _explain(model, error)) from error
    return _with_attributes(exported, inputs.names)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch reports about its own tracing; errors still come as exceptions."""
    # It says once a process that "is_fx_tracing will return true for both …".
    log = logging.getLogger("torch.fx._symbolic_trace")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _of_ours(error: BaseException) -> str | None:
    """Message of an scn-fx error that torch may have wrapped in one of its own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ScnError):
            return str(seen)
        seen = seen.__cause__ or seen.__context__
    return None


def _explain(model: nn.Module, error: Exception) -> str:
    text = str(error).strip() or repr(error)
    hint = "Capture the sparse encoder alone, with the arguments that its own forward takes."
    if "only support int32" in text:
        hint = "spconv needs int32 indices: pass indices.int() among args."
    elif "ata-dependent" in text or "Constraints violated" in text or "unbacked" in text:
        hint = (
            "The forward decides or computes something from the voxels' values or their number; pass such "
            "values (the batch size, for instance) as Python numbers among args."
        )
    return f"torch.export cannot trace {type(model).__name__}: {type(error).__name__}: {text}\n{hint}"


def _with_attributes(exported: torch.export.ExportedProgram, names: tuple[str, ...]) -> fx.GraphModule:
    """Turn the lifted parameters of an exported program back into attributes, and name its inputs."""
    kinds = torch.export.graph_signature.InputKind
    root = nn.Module()
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    specs = iter(exported.graph_signature.input_specs)
    free_names = iter(names)
    stored = {**dict(exported.named_parameters()), **dict(exported.named_buffers()), **exported.constants}
    count = 0
    for node in exported.graph_module.graph.nodes:
        if node.op == "placeholder":
            spec = next(specs)
            if spec.kind == kinds.USER_INPUT:
                made = graph.placeholder(next(free_names))
            else:
                attribute = f"stored_{count}"
                count += 1
                root.register_buffer(attribute, stored[spec.target])
                made = graph.get_attr(attribute)
        elif node.op == "get_attr":
            raise CaptureError(
                f"torch.export left {node.target!r} in the program of the model, "
                "which uses control flow or a constant that scn-fx cannot capture."
            )
        else:
            made = graph.node_copy(node, values.__getitem__)
        made.meta = {"val": node.meta.get("val")}
        set_place(made, *_place(node))
        values[node] = made
    return fx.GraphModule(root, graph, class_name="CapturedGraph")


def _place(node: fx.Node) -> tuple[str, str]:
    """Path (within the model) and class name of the innermost module that made the node."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return "", ""
    path, cls = list(stack.values())[-1]
    path = path.split("@")[0]
    path = "" if path == _MODEL else path.removeprefix(f"{_MODEL}.")
    name = cls if isinstance(cls, str) else cls.__name__
    return path, name.rsplit(".", 1)[-1]
