# SPDX-License-Identifier: Apache-2.0
"""Least squares over integers: the weights of one layer, all output channels at once.

Minimised is, for each output channel, ``n' A n - 2 b' n`` over whole numbers n between bounds, where A is the
Gram matrix of the inputs and b their product with the targets. Two methods follow one another:

- successive rounding: the continuous optimum is rounded input by input, and what each rounding spoils is made
  good by those that are still to be rounded (Babai's nearest plane algorithm; GPTQ, Frantar et al. 2023,
  arXiv:2210.17323, is the same, as Chen et al. 2025, arXiv:2507.18553, show);
- coordinate descent: each integer in turn takes its best value while the others stay (QuantEase, Behdin et
  al. 2023, arXiv:2309.01885), until no integer changes.

Both take one input after the other, each a few operations on a row of numbers: NumPy does these, for blocks
of inputs, and the tensors' device the matrix products that carry a block's changes to all other inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Bounds", "descend", "round_successively"]

_BLOCK = 64  # inputs whose updates of all others are done in one matrix product

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """Smallest and largest integer of each weight, float64 [inputs, out]."""

    low: torch.Tensor
    high: torch.Tensor


def round_successively(gram: torch.Tensor, product: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """Integers [inputs, out] near the optimum; `gram` is positive definite [inputs, inputs], float64.

    Inputs with the most energy are rounded first, when most others are left to make up for it.
    """
    order = torch.argsort(gram.diagonal(), stable=True)
    lower = torch.linalg.cholesky(gram[order][:, order])
    best = torch.cholesky_solve(product[order], lower)
    upper = lower.t()
    low, high, ideal = (_array(tensor) for tensor in (bounds.low[order], bounds.high[order], best))
    integers = np.empty_like(ideal)
    carried = torch.zeros_like(best)  # of the rounding errors made so far, through the rows of `upper`
    for rows in reversed(list(_blocks(len(order)))):
        inner, mine = _array(upper[rows, rows]), _array(carried[rows])
        errors = np.zeros_like(mine)
        for i in range(len(mine) - 1, -1, -1):
            at = rows.start + i
            wanted = ideal[at] + (mine[i] + inner[i, i + 1 :] @ errors[i + 1 :]) / inner[i, i]
            integers[at] = _nearest(wanted, low[at], high[at])
            errors[i] = ideal[at] - integers[at]
        carried[: rows.start] += upper[: rows.start, rows] @ _tensor(errors, best)
    result = torch.empty_like(best)
    result[order] = _tensor(integers, best)
    return result


def descend(
    gram: torch.Tensor, product: torch.Tensor, integers: torch.Tensor, bounds: Bounds, sweeps: int
) -> torch.Tensor:
    """`integers` [inputs, out] after at most `sweeps` rounds of coordinate descent; never worse."""
    blocks = list(_blocks(len(gram)))
    inner = [_array(gram[rows, rows]) for rows in blocks]
    low, high, found = (_array(tensor).copy() for tensor in (bounds.low, bounds.high, integers))
    gradient = gram @ integers - product
    for _ in range(sweeps):
        moved = False
        for rows, matrix in zip(blocks, inner, strict=True):
            steps = _descend_block(matrix, _array(gradient[rows]), found[rows], low[rows], high[rows])
            if steps is not None:
                moved = True
                found[rows] += steps
                gradient += gram[:, rows] @ _tensor(steps, gradient)
        if not moved:
            break
    return _tensor(found, integers)


def _descend_block(
    gram: _Floats, gradient: _Floats, present: _Floats, low: _Floats, high: _Floats
) -> _Floats | None:
    """The steps that one round takes within a block [inputs, out]; None if there are none."""
    steepness = gram.diagonal()[:, None]
    if np.array_equal(_nearest(present - gradient / steepness, low, high), present):
        return None  # no input moves while the others stay, so none will
    steps = np.zeros_like(present)
    for i in range(len(gram)):
        slope = gradient[i] + gram[i, :i] @ steps[:i]
        steps[i] = _nearest(present[i] - slope / gram[i, i], low[i], high[i]) - present[i]
    return steps


def _nearest(values: _Floats, low: _Floats, high: _Floats) -> _Floats:
    """The nearest integers within bounds."""
    return np.minimum(np.maximum(np.rint(values), low), high)


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))


def _array(values: torch.Tensor) -> _Floats:
    array: _Floats = values.cpu().contiguous().numpy()
    return array


def _tensor(values: _Floats, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(like.device)
