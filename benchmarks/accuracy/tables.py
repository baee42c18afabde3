# SPDX-License-Identifier: Apache-2.0
"""Markdown tables, as the docs show them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["markdown", "sqnr"]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sqnr(reference: torch.Tensor, value: torch.Tensor) -> float:
    """Signal to noise in decibels: the reference's energy over that of the difference."""
    wanted = reference.double()
    noise = (wanted - value.double()).square().sum()
    return float(10 * torch.log10(wanted.square().sum() / noise))
