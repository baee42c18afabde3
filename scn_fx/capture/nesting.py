# SPDX-License-Identifier: Apache-2.0
"""Nested arguments: tuples, lists, dicts and their subclasses (EasyDict, batch dicts), dataclasses.

torch's pytrees know the built-in containers alone; a dict of a class of its own would be one opaque leaf, and
the tensors in it constants.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Leaf", "flatten", "rebuilt"]


@dataclass(frozen=True)
class Leaf:
    """A value inside nested containers.

    Attributes:
        value: the value.
        path: indices, keys and attribute names that lead to it.
        kinds: for each step "index", "key" or "name".
    """

    value: Any
    path: tuple[Any, ...]
    kinds: tuple[str, ...]


def flatten(value: Any) -> Iterator[Leaf]:
    """The leaves of a value in order."""
    yield from _leaves(value, (), ())


def rebuilt(value: Any, leaves: Iterator[Any]) -> Any:
    """A copy of the containers of `value` that holds `leaves`, in the order of `flatten`."""
    items = _items(value)
    if items is None:
        return next(leaves)
    kind, pairs = items
    parts = [(step, rebuilt(part, leaves)) for step, part in pairs]
    if isinstance(value, tuple):
        values = [part for _, part in parts]
        return type(value)(*values) if hasattr(value, "_fields") else tuple(values)
    made = copy.copy(value)
    for step, part in parts:
        if kind == "name":
            object.__setattr__(made, step, part)
        else:
            made[step] = part
    return made


def _leaves(value: Any, path: tuple[Any, ...], kinds: tuple[str, ...]) -> Iterator[Leaf]:
    items = _items(value)
    if items is None:
        yield Leaf(value, path, kinds)
        return
    kind, pairs = items
    for step, part in pairs:
        yield from _leaves(part, (*path, step), (*kinds, kind))


def _items(value: Any) -> tuple[str, list[tuple[Any, Any]]] | None:
    """What a container holds, and how one reaches it; None for a leaf."""
    if isinstance(value, MutableMapping):
        return "key", list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "name", list(zip(value._fields, value, strict=True))
    if isinstance(value, list | tuple):
        return "index", list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "name", [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return None
