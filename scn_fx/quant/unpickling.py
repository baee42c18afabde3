# SPDX-License-Identifier: Apache-2.0
"""Reads files of torch.save without running anything of theirs: foreign classes become inert stand-ins.

A pickle is a program that may call whatever it can import. Training frameworks keep more than weights in
their checkpoints (configurations, logs, dates, paths, whole modules), so torch's own `weights_only=True`
refuses many that are harmless. Here an object of any class but the few below becomes a `Foreign`, which keeps
what the pickle gives it and does nothing. Only tensors, storages, OrderedDicts and sets are really built.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import IO, Any

import torch

__all__ = ["Foreign", "load_inert"]


class Foreign(dict[Any, Any]):
    """Stands for an object of a class that is not loaded; a dict, so that foreign dicts keep their items.

    Attributes:
        origin: module and name of the class (or function) that the pickle asked for.
        given: the arguments it was to be called with.
        state: what was to become its attributes; None if there was nothing.
    """

    origin = ""
    # torch looks at this for modules saved with their source; were it true, torch would write a patch file.
    dump_patches = False

    given: tuple[Any, ...]
    state: Any

    def __new__(cls, *given: Any, **named: Any) -> Foreign:
        made = super().__new__(cls)
        made.given, made.state = (*given, *named.values()), None
        return made

    def __init__(self, *given: Any, **named: Any) -> None:
        """Takes anything; `__new__` has kept it."""

    def __setstate__(self, state: Any) -> None:
        """Keep the attributes as data."""
        self.state = state

    def __call__(self, *given: Any, **named: Any) -> Foreign:
        """What a bound method or a partial function of the pickle returns: again a stand-in."""
        return Foreign(*given, **named)

    def append(self, item: Any) -> None:
        """Keep an item of a foreign list."""
        self[len(self)] = item

    def extend(self, items: Any) -> None:
        """Keep items of a foreign list."""
        for item in items:
            self.append(item)

    add = append

    __hash__ = object.__hash__  # type: ignore[assignment]  # stand-ins may be keys


class _Builder:
    """A function that a pickle may call but cannot change (it could set attributes of a plain function)."""

    __slots__ = ("_build",)
    _build: Callable[..., Any]

    def __init__(self, build: Callable[..., Any]):
        object.__setattr__(self, "_build", build)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"the pickle tries to change {name!r} of a builder")

    def __call__(self, *given: Any) -> Any:
        return self._build(*given)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    # What follows the stride (requires_grad, hooks) is nothing to weights.
    return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _with_attributes(build: Any, _kind: Any, given: Any, _state: Any) -> Any:
    return build(*given)


_BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): lambda *given: _tensor(*given[:4]),
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _with_attributes,
}


# Not pickle.Unpickler: the C one reserves (and fills) a table as long as the largest number that a file gives
# to one of its objects, so that five bytes take 32 GB.
class _Unpickler(pickle._Unpickler):
    """Imports nothing: every name is one of `_BUILDERS`, a dtype, or a stand-in."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """What the pickle gets for a global name. (torch's own subclass has seen to the storages.)"""
        build = _BUILDERS.get((module_name, global_name))
        if build is not None:
            return _Builder(build)
        known = getattr(torch, global_name, None) if module_name == "torch" else None
        if isinstance(known, torch.dtype):
            return known
        return type("Foreign", (Foreign,), {"origin": f"{module_name}.{global_name}", "__module__": __name__})


def _load(file: IO[bytes], **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__=__name__)


def load_inert(path: str | IO[bytes]) -> Any:
    """The content of a file of torch.save (zip or older) on the CPU, with `Foreign` for foreign objects.

    Raises what torch.load raises for damaged files.
    """
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
