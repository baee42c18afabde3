# SPDX-License-Identifier: Apache-2.0
"""How the table says which calls of aten operators are an operator of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["AtenCall", "AtenRule", "Lowered"]


class AtenCall(Protocol):
    """A call of an aten operator in a traced program; the pass `LowerOperators` makes these."""

    def argument(self, name: str) -> Any:
        """An argument by its name in aten's schema; tensors are opaque values."""

    def on_dense_map(self, value: Any) -> bool:
        """Whether a value is a dense map."""

    def not_features(self, value: Any) -> str | None:
        """Why a value is not one row per site, to follow "it is"; None if it is."""

    def numbers(self, value: Any) -> list[float] | None:
        """The numbers of a parameter or constant of the model, in order; None for other values."""

    def channels(self, value: Any) -> int | None:
        """Width of a value, where it is known."""


@dataclass(frozen=True)
class Lowered:
    """The operands, in the order of the operator's schema, and keyword arguments but the name."""

    operands: tuple[Any, ...]
    keywords: dict[str, Any] = field(default_factory=dict)


AtenRule = Callable[[AtenCall], Lowered | str | None]
"""What a call becomes; a text with the reason why it becomes nothing; None if it is another operator's."""
