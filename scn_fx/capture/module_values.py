# SPDX-License-Identifier: Apache-2.0
"""What the modules of a model return while it is traced: to end the captured part there, or to begin it.

One global forward hook marks the values. A mark is an operator of its own, so that a later operator that
works in place changes what comes after the mark, not what the module returned; passes take the marks out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from scn_fx.capture.nesting import flatten, rebuilt
from scn_fx.capture.spconv1 import is_sparse, with_features
from scn_fx.capture.tracing import Tracing
from scn_fx.errors import CaptureError

__all__ = ["check_begins", "entry", "leave_modules", "module_values", "path_of_begin"]


@torch.library.custom_op("scn_fx::returned", mutates_args=(), schema="(Tensor value, *, str path) -> Tensor")
def _returned(value: torch.Tensor, *, path: str) -> torch.Tensor:
    return value.clone()


@_returned.register_fake
def _(value: torch.Tensor, *, path: str) -> torch.Tensor:
    return value.new_empty(value.shape)


@torch.library.custom_op(
    "scn_fx::entry", mutates_args=(), schema="(Tensor value, Tensor rows, *, str name, str after) -> Tensor"
)
def _entry(value: torch.Tensor, rows: torch.Tensor, *, name: str, after: str) -> torch.Tensor:
    return value.clone()


@_entry.register_fake
def _(value: torch.Tensor, rows: torch.Tensor, *, name: str, after: str) -> torch.Tensor:
    return value.new_empty(rows.shape[0], *value.shape[1:])


def entry(value: torch.Tensor, rows: torch.Tensor, name: str, after: str) -> torch.Tensor:
    """A mark on a value [N, …], N as of `rows`, that becomes an input of the graph, called `name`.

    `after` says in words where the value comes from.
    """
    made: torch.Tensor = torch.ops.scn_fx.entry.default(value, rows, name=name, after=after)
    return made


def path_of_begin(begin: Any, model: nn.Module) -> tuple[Any, ...]:
    """The way that `input=` of capture means: a module's path, and steps into what it returns."""
    way = begin if isinstance(begin, tuple) else (begin,)
    paths = dict(model.named_modules(remove_duplicate=False))
    if not way or not isinstance(way[0], str) or not way[0] or way[0] not in paths:
        known = [path for path, module in model.named_children()]
        raise CaptureError(
            "input must be the path of a module of the model, after which the captured part begins, such as "
            f"{known[0] if known else 'reader'!r}, or a tuple of it and a key of what it returns; got "
            f"{begin!r}. The model's modules are {', '.join(known)}."
        )
    return way


def check_begins(tracing: Tracing) -> None:
    """The module of `input=` must have run, once."""
    if tracing.begin and tracing.began != 1:
        times = f"{tracing.began} times" if tracing.began else "not at all"
        raise CaptureError(
            f"input={tracing.begin[0]!r}: the forward runs that module {times}, but the captured part can "
            "only begin after a module that runs once."
        )


@contextmanager
def module_values(tracing: Tracing) -> Iterator[None]:
    """Within the context, mark what modules return: `tracing.returned`, and the value of `tracing.begin`."""
    hook = register_module_forward_hook(_Hook(tracing), always_call=False)
    try:
        yield
    finally:
        hook.remove()


def leave_modules(error: BaseException) -> None:
    """Take the modules that an error has left off torch's stack of running modules.

    torch.fx takes a module off when its forward has returned, and does not when it was left by an error; the
    trace could not go on. (torch 2.11 to 2.14; where it is done otherwise, the stack is not found.)
    """
    trace = error.__traceback__
    while trace is not None:
        scope = trace.tb_frame.f_locals
        stack = getattr(scope.get("self"), "module_stack", None)
        if isinstance(stack, dict) and "module_key" in scope:
            stack.pop(scope["module_key"], None)
        trace = trace.tb_next


class _Hook:
    def __init__(self, tracing: Tracing) -> None:
        import threading

        self._tracing = tracing
        self._thread, self._ident = threading.get_ident(), threading.get_ident

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        tracing = self._tracing
        if self._ident() != self._thread or not tracing.registered(module) or not tracing.path(module):
            return None
        path = tracing.path(module)
        if module._forward_hooks:  # they run after this one, and may change the result
            if path in tracing.wanted or (tracing.begin and tracing.canonical(tracing.begin[0]) == path):
                raise CaptureError(
                    f"Module {tracing.describe(module)} has forward hooks, so that what it returns is not "
                    "what its caller gets. Remove them, or name the module around it."
                )
            return None
        result = None
        if tracing.begin and tracing.canonical(tracing.begin[0]) == path:
            tracing.began += 1
            output = result = _begun(tracing, output, args)
        if is_sparse(output):
            tracing.ends.pop(path, None)
            tracing.ends[path] = None
        if path in tracing.wanted:
            leaves = [_kept(leaf.value, (path, *leaf.path)) for leaf in flatten(output)]
            tracing.keep(path, rebuilt(output, iter(leaves)))
        else:
            _marked(output, (path,))
        return result


def _kept(value: Any, way: tuple[Any, ...]) -> Any:
    """The value with its mark; the indices of a sparse tensor have one too, as a forward may change them."""
    made = _marked(value, way)
    if is_sparse(value):
        made.indices = torch.ops.scn_fx.returned.default(value.indices, path=_as_code(way))
    return made


def _marked(value: Any, way: tuple[Any, ...]) -> Any:
    """The value with the mark that it is what a module returned, or what `way` leads to in that."""
    if is_sparse(value):
        return with_features(value, _marked(value.features, way))
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() >= 2:
        return torch.ops.scn_fx.returned.default(value, path=_as_code(way))
    return value


def _as_code(way: tuple[Any, ...]) -> str:
    return repr(way[0] if len(way) == 1 else way)


def _begun(tracing: Tracing, output: Any, args: Any) -> Any:
    """What the module of `input=` returned, its features an input of the graph from here on."""
    assert tracing.begin is not None
    module, steps = tracing.begin[0], tracing.begin[1:]
    before = {id(leaf.value) for leaf in flatten(args)}
    found = list(flatten(output))
    if steps:
        chosen = [leaf for leaf in found if leaf.path == steps]
    else:
        made = [leaf for leaf in found if _is_features(leaf.value)]
        # A module that fills a batch dictionary returns what was in it, too.
        chosen = [leaf for leaf in made if id(leaf.value) not in before] if len(made) > 1 else made
    if len(chosen) != 1 or not _is_features(chosen[0].value):
        listed = "; ".join(
            f"{(module, *leaf.path) if leaf.path else module!r}: {_shown(leaf.value)}" for leaf in found
        )
        named = tracing.begin if steps else module
        raise CaptureError(
            f"input={named!r}: expected one float tensor [N, C], the features of the voxels, in what the "
            f"module returns. It returns {listed}. Where that is several, name one by a tuple of the path "
            "and its key."
        )
    leaf = chosen[0]
    name = next((str(step) for step in reversed(leaf.path) if isinstance(step, str)), "features")
    value = entry(leaf.value, leaf.value, name, f"module {module!r}")
    if not leaf.path:
        return value
    return _replaced(output, leaf.path, value)


def _replaced(container: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The container with another value at `path`: a dictionary itself, which others hold too, or a copy."""
    step, rest = path[0], path[1:]
    if isinstance(container, tuple):
        names = getattr(container, "_fields", None)
        position = names.index(step) if names and isinstance(step, str) else step
        items = list(container)
        items[position] = _replaced(items[position], rest, value) if rest else value
        return type(container)(*items) if names else tuple(items)
    if isinstance(container, dict | list):
        container[step] = _replaced(container[step], rest, value) if rest else value
    else:
        inner = getattr(container, step)
        object.__setattr__(container, step, _replaced(inner, rest, value) if rest else value)
    return container


def _is_features(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() == 2


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} {[s if isinstance(s, int) else 'N' for s in value.shape]}"
    return type(value).__name__
