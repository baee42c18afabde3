# SPDX-License-Identifier: Apache-2.0
"""Least squares over integers: the weights of one layer, all output channels at once.

Minimised is, for each output channel, ``n' A n - 2 b' n`` over whole numbers n between bounds, where A is the
Gram matrix of the inputs and b their product with the targets. Two methods follow one another:

- successive rounding: the continuous optimum is rounded input by input, and what each rounding spoils is made
  good by those that are still to be rounded (Babai's nearest plane algorithm; GPTQ, Frantar et al. 2023,
  arXiv:2210.17323, is the same, as Chen et al. 2025, arXiv:2507.18553, show);
- coordinate descent: each integer in turn takes its best value while the others stay (QuantEase, Behdin et
  al. 2023, arXiv:2309.01885), until no integer changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Bounds", "descend", "round_successively"]

_BLOCK = 64  # inputs whose updates of all others are done in one matrix product


@dataclass(frozen=True)
class Bounds:
    """Smallest and largest integer of each weight, float64 [inputs, out]."""

    low: torch.Tensor
    high: torch.Tensor

    def nearest(self, values: torch.Tensor, rows: slice | int) -> torch.Tensor:
        """The nearest integers within the bounds of these rows."""
        return torch.clamp(values.round(), self.low[rows], self.high[rows])


def round_successively(gram: torch.Tensor, product: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """Integers [inputs, out] near the optimum; `gram` is positive definite [inputs, inputs], float64.

    Inputs with the most energy are rounded first, when most others are left to make up for it.
    """
    order = torch.argsort(gram.diagonal(), stable=True)
    permuted = gram[order][:, order]
    lower = torch.linalg.cholesky(permuted)
    best = torch.cholesky_solve(product[order], lower)
    upper = lower.t()
    pivots = upper.diagonal().tolist()
    inside = Bounds(bounds.low[order], bounds.high[order])
    integers = torch.empty_like(best)
    carried = torch.zeros_like(best)  # of the rounding errors made so far, through the rows of `upper`
    for end in range(len(order), 0, -_BLOCK):
        start = max(end - _BLOCK, 0)
        for row in range(end - 1, start - 1, -1):
            integers[row] = inside.nearest(best[row] + carried[row] / pivots[row], row)
            error = best[row] - integers[row]
            carried[start:row].addr_(upper[start:row, row], error)
        carried[:start] += upper[:start, start:end] @ (best[start:end] - integers[start:end])
    result = torch.empty_like(integers)
    result[order] = integers
    return result


def descend(
    gram: torch.Tensor, product: torch.Tensor, integers: torch.Tensor, bounds: Bounds, sweeps: int
) -> torch.Tensor:
    """`integers` [inputs, out] after at most `sweeps` rounds of coordinate descent; never worse."""
    integers = integers.clone()
    gradient = gram @ integers - product
    steepness = gram.diagonal().tolist()
    for _ in range(sweeps):
        moved = False
        for start in range(0, len(gram), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(gram)))
            before = integers[rows].clone()
            inner, local = gram[rows, rows], gradient[rows].clone()
            for row in range(rows.stop - start):
                at = start + row
                step = bounds.nearest(integers[at] - local[row] / steepness[at], at) - integers[at]
                integers[at] += step
                local.addr_(inner[:, row], step)
            change = integers[rows] - before
            if bool(change.any()):
                moved = True
                gradient += gram[:, rows] @ change
        if not moved:
            break
    return integers
