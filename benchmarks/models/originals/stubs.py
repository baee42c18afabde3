# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for packages that a checkout imports and that are not installed (mmcv, torch_scatter, CUDA code).

A stand-in can be imported from, called, used as a decorator, subclassed and put into annotations. It computes
nothing: calling one for a result gives another stand-in, which no network can take for a tensor.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from torch import nn

__all__ = ["Stub", "StubModule"]


class Stub:
    """Anything that a missing module exports, named by its dotted path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub(f"{self._path}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As a decorator, or a registry's, it hands the class or function back."""
        if len(args) == 1 and not kwargs and isinstance(args[0], type | types.FunctionType):
            return args[0]
        return Stub(f"{self._path}(…)")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return () if any(isinstance(base, type) for base in bases) else (nn.Module,)

    def __instancecheck__(self, instance: object) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __getitem__(self, key: Any) -> Any:
        return Stub(f"{self._path}[…]")

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __or__

    def __repr__(self) -> str:
        return f"<not installed: {self._path}>"


class StubModule(types.ModuleType):
    """A module that is not installed; every name is in it."""

    __all__: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__file__ = f"<not installed: {name}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub(f"{self.__name__}.{name}")
