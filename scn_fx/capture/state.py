# SPDX-License-Identifier: Apache-2.0
"""A model's Python state, put back after its forward has run on fake tensors."""

from __future__ import annotations

import inspect
import sys
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

__all__ = ["State"]

_CONTAINERS = (dict, list, set, deque)
_LIBRARIES = ("builtins", "torch", "numpy", "spconv", "cumm", "threading", "logging")
_ABSENT = object()

# A detector may hold its data set, whose lists describe every frame there is. No forward keeps its tensors
# among them, and to copy them would take seconds and as much memory again.
_LARGE, _MOST = 10_000, 50_000


class State:
    """What the attributes of a model's modules hold, and the containers and objects that they lead to.

    A forward may keep anything anywhere: a tensor in an attribute that `__init__` did not make, an entry in a
    dict, an item of a list, an attribute (or slot) of a helper object, of a class, of a Python module, a
    variable that a hook closes over. `restore` puts back what was there, in the very same containers. In
    helper objects, functions, classes and Python modules, which other code uses too, only what holds a fake
    tensor is put back, and not in containers of more than 10,000 items nor in more than 50,000 containers.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._own: list[tuple[Any, Any]] = []
        self._shared: list[tuple[Any, Any]] = []
        self._tensors = dict(_tensors(model))
        self._seen: set[int] = set()
        self._namespaces: set[str] = set()  # Python modules of functions that the model holds
        self._visit(model, self._own)
        for owner in _owners(model, self._namespaces):
            self._shared.append((owner, dict(vars(owner))))
            for value in list(vars(owner).values()):
                if isinstance(value, _CONTAINERS):
                    self._visit(value, self._shared)

    def reassigned(self) -> set[str]:
        """Names of tensor attributes and buffers that no longer hold the tensor they held."""
        now = dict(_tensors(self._model))
        return {name for name, value in self._tensors.items() if now.get(name) is not value}

    def restore(self) -> None:
        """Put back everything that has changed."""
        for container, content in self._own:
            if not _same(container, content):
                _refill(container, content)
        for owner, content in self._shared:
            if isinstance(owner, _CONTAINERS):
                if not _same(owner, content) and _holds_fake(owner):
                    _refill(owner, content)
            else:
                _restore_attributes(owner, content)

    def _visit(self, value: Any, found: list[tuple[Any, Any]]) -> None:
        """Remember the content of a value and of everything it leads to."""
        pending = [(value, found)]
        while pending:
            item, into = pending.pop()
            if id(item) in self._seen:
                continue
            if isinstance(item, _CONTAINERS):
                if into is self._shared and (len(item) > _LARGE or len(into) > _MOST):
                    continue
                into.append((item, _copy(item)))
                inside: Any = item.values() if isinstance(item, dict) else item
            elif isinstance(item, tuple | frozenset):
                inside = item
            elif isinstance(item, nn.Module):
                inside = [item.__dict__]
                if _slot_names(item):
                    self._shared.append((item, _slots(item)))
            elif isinstance(item, types.MethodType):
                inside = [item.__self__, item.__func__]
            elif _is_helper(item):
                attributes = _attributes(item)
                into, inside = self._shared, attributes.values()
                into.append((item, attributes))
                if isinstance(item, types.FunctionType):
                    self._namespaces.add(item.__module__)
                    inside = [*inside, *(item.__closure__ or ()), *(item.__defaults__ or ())]
            else:
                continue
            self._seen.add(id(item))
            pending += [(part, into) for part in inside]


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Buffers, and tensors that are plain attributes, by name."""
    for path, module in model.named_modules():
        for name, value in (*vars(module).items(), *module._buffers.items()):
            if isinstance(value, torch.Tensor):
                yield f"{path}.{name}" if path else name, value


def _copy(container: Any) -> Any:
    # Of a built-in type: a subclass may want other arguments.
    return next(kind(container) for kind in (dict, set, list) if isinstance(container, kind) or kind is list)


def _same(container: Any, content: Any) -> bool:
    """Whether a container holds what it held: the same objects, not equal ones."""
    if len(container) != len(content):
        return False
    if isinstance(container, dict):
        return all(content.get(key, _ABSENT) is value for key, value in container.items())
    if isinstance(container, set):
        return {id(item) for item in container} == {id(item) for item in content}
    return all(a is b for a, b in zip(container, content, strict=True))


def _refill(container: Any, content: Any) -> None:
    container.clear()
    (container.update if isinstance(container, dict | set) else container.extend)(content)


def _restore_attributes(owner: Any, content: dict[str, Any]) -> None:
    for name, value in _attributes(owner).items():
        before = content.get(name, _ABSENT)
        if value is not before and _holds_fake(value):
            delattr(owner, name) if before is _ABSENT else setattr(owner, name, before)


def _attributes(owner: Any) -> dict[str, Any]:
    """What an object, class, Python module or cell of a closure holds, by name."""
    if isinstance(owner, types.CellType):
        try:
            return {"cell_contents": owner.cell_contents}
        except ValueError:  # nothing is in it yet
            return {}
    return {**getattr(owner, "__dict__", {}), **({} if isinstance(owner, type) else _slots(owner))}


def _slots(item: Any) -> dict[str, Any]:
    """What the slots of an object hold, by name."""
    return {name: getattr(item, name) for name in _slot_names(item) if hasattr(item, name)}


def _slot_names(item: Any) -> list[str]:
    """Names of the slots that an object's classes declare; not those of a library's."""
    classes = [cls for cls in type(item).__mro__ if not _of_library(cls.__module__)]
    members = [member for cls in classes for member in vars(cls).items()]
    return [name for name, member in members if isinstance(member, types.MemberDescriptorType)]


def _is_helper(item: Any) -> bool:
    """Whether a value is an object whose attributes a forward may set: no class, nothing of a library."""
    if isinstance(item, types.CellType):
        return True
    if isinstance(item, types.FunctionType):
        return not _of_library(item.__module__)
    if isinstance(item, torch.Tensor | type) or inspect.isroutine(item) or inspect.ismodule(item):
        return False
    return not _of_library(type(item).__module__)


def _of_library(module: str | None) -> bool:
    return str(module).partition(".")[0] in _LIBRARIES


def _owners(model: nn.Module, namespaces: set[str]) -> Iterator[Any]:
    """Classes of the model's modules below nn.Module, the Python modules that define them, `namespaces`."""
    classes = {
        cls for module in model.modules() for cls in type(module).__mro__ if not _of_library(cls.__module__)
    }
    yield from classes
    for name in namespaces | {cls.__module__ for cls in classes}:
        if name in sys.modules:
            yield sys.modules[name]


def _holds_fake(value: Any, depth: int = 4) -> bool:
    """Whether a value is a fake tensor, or a container or sparse tensor that holds one."""
    if isinstance(value, FakeTensor):
        return True
    if depth == 0:
        return False
    if isinstance(value, dict):
        return any(_holds_fake(item, depth - 1) for item in value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return any(_holds_fake(item, depth - 1) for item in value)
    return isinstance(getattr(value, "_features", None), FakeTensor)
