# SPDX-License-Identifier: Apache-2.0
"""Kernel maps by sorted keys: which input row each kernel offset of each output site reads.

A site is a row (batch, z, y, x). Its key is its rank in the whole grid, so ascending keys are ascending
(batch, z, y, x). A kernel map is int32 [M, K]: entry (m, k) is the input row that output m reads with offset
k, or -1; offsets are numbered with x fastest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

__all__ = [
    "align",
    "in_space",
    "inverse_map",
    "offsets",
    "on_plane",
    "output_shape",
    "site_keys",
    "strided_map",
    "submanifold_map",
    "transposed_map",
]

Ints = npt.NDArray[np.int32]
Keys = npt.NDArray[np.int64]


def offsets(kernel: Sequence[int]) -> Iterator[npt.NDArray[np.int64]]:
    """Kernel offsets (z, y, x) in their numbering: x fastest."""
    return (np.array(k, np.int64) for k in product(*(range(n) for n in kernel)))


def output_shape(
    shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    transposed: bool = False,
    output_padding: Sequence[int] = (0, 0, 0),
) -> tuple[int, ...]:
    """Output grid by the formulas of dense convolutions."""
    result = []
    for n, k, s, p, d, extra in zip(shape, kernel, stride, padding, dilation, output_padding, strict=True):
        reach = d * (k - 1)
        if transposed:
            result.append((n - 1) * s - 2 * p + reach + 1 + extra)
        else:
            result.append((n + 2 * p - reach - 1) // s + 1)
    return tuple(result)


def site_keys(sites: npt.NDArray[np.integer], shape: Sequence[int]) -> Keys:
    """Rank of each site in the grid; sites must lie inside `shape`."""
    b = sites.astype(np.int64)
    keys = b[:, 0]
    for axis, size in enumerate(shape):
        keys = keys * int(size) + b[:, 1 + axis]
    return keys


def _sites_of(keys: Keys, shape: Sequence[int]) -> Ints:
    z, y, x = (int(n) for n in shape)
    columns = (keys // (x * y * z), keys // (x * y) % z, keys // x % y, keys % x)
    return np.stack(columns, axis=1).astype(np.int32)


def _inside(points: npt.NDArray[np.int64], shape: Sequence[int]) -> npt.NDArray[np.bool_]:
    return ((points[:, 1:] >= 0) & (points[:, 1:] < np.asarray(shape))).all(axis=1)


def _look_up(wanted: Keys, keys: Keys) -> npt.NDArray[np.int64]:
    """Row of each wanted key among `keys` (any order, no duplicates), or -1."""
    if len(keys) == 0:
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(keys)
    place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    rows = order[place]
    return np.where(keys[rows] == wanted, rows, -1)


def in_space(sites: Ints) -> Ints:
    """Sites [N, 2..4] of a network of one to three dimensions as (batch, z, y, x)."""
    made = np.zeros((len(sites), 4), np.int32)
    made[:, 0] = sites[:, 0]
    for back in range(1, sites.shape[1]):
        made[:, -back] = sites[:, -back]
    return made


def on_plane(sites: Ints, ndim: int) -> Ints:
    """Sites (batch, z, y, x) with the columns of a network of `ndim` dimensions; the others must be 0."""
    assert not sites[:, 1 : 4 - ndim].any(), "sites off the axes that the network has"
    return np.ascontiguousarray(np.delete(sites, range(1, 4 - ndim), axis=1))


def align(wanted: npt.NDArray[np.integer], have: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Row of `have` for each row of `wanted`; both must hold the same sites, in any order."""
    assert wanted.shape == have.shape, f"{len(have)} sites, expected {len(wanted)}"
    axes = range(1, wanted.shape[1])
    shape = [1 + max(wanted[:, i].max(initial=0), have[:, i].max(initial=0)) for i in axes]
    rows = _look_up(site_keys(wanted, shape), site_keys(have, shape))
    assert (rows >= 0).all(), f"site {wanted[rows < 0][:1].tolist()} is missing"
    return rows


def submanifold_map(
    sites: Ints, shape: Sequence[int], kernel: Sequence[int], dilation: Sequence[int]
) -> Ints:
    """Map of a submanifold convolution: outputs are the inputs, in their order; centred at `kernel // 2`."""
    keys = site_keys(sites, shape)
    centre = np.array([n // 2 for n in kernel], np.int64)
    columns = []
    for k in offsets(kernel):
        points = sites.astype(np.int64)
        points[:, 1:] += (k - centre) * np.asarray(dilation)
        rows = _look_up(site_keys(points, shape), keys)
        columns.append(np.where(_inside(points, shape), rows, -1))
    return np.stack(columns, axis=1).astype(np.int32)


def _collect(reached: list[tuple[npt.NDArray[np.int64], Keys]], shape: Sequence[int]) -> tuple[Ints, Ints]:
    """Outputs (ascending) and kernel map from, per offset, input rows and the keys they reach."""
    keys = np.unique(np.concatenate([k for _, k in reached]))
    kernel_map = np.full((len(keys), len(reached)), -1, np.int32)
    for column, (rows, targets) in enumerate(reached):
        kernel_map[np.searchsorted(keys, targets), column] = rows
    return _sites_of(keys, shape), kernel_map


def strided_map(
    sites: Ints,
    out_shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Ints, Ints]:
    """Outputs int32 [M, 4], ascending, and map [M, K] of a convolution.

    Output o reads, with offset k, the input `o * stride - padding + k * dilation`; outputs are all sites that
    at least one input reaches.
    """
    reached = []
    for k in offsets(kernel):
        points = sites.astype(np.int64)
        points[:, 1:] += np.asarray(padding) - k * np.asarray(dilation)
        on_lattice = (points[:, 1:] % np.asarray(stride) == 0).all(axis=1)
        points[:, 1:] //= np.asarray(stride)
        rows = np.flatnonzero(on_lattice & _inside(points, out_shape))
        reached.append((rows, site_keys(points[rows], out_shape)))
    return _collect(reached, out_shape)


def transposed_map(
    sites: Ints,
    out_shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Ints, Ints]:
    """Outputs int32 [M, 4], ascending, and map [M, K] of a transposed convolution.

    Input i reaches, with offset k, the output `i * stride - padding + k * dilation`.
    """
    reached = []
    for k in offsets(kernel):
        points = sites.astype(np.int64)
        points[:, 1:] = points[:, 1:] * np.asarray(stride) - np.asarray(padding) + k * np.asarray(dilation)
        rows = np.flatnonzero(_inside(points, out_shape))
        reached.append((rows, site_keys(points[rows], out_shape)))
    return _collect(reached, out_shape)


def inverse_map(kernel_map: Ints, inputs: int) -> Ints:
    """Map of the inverse convolution: from the partner's outputs back to its `inputs` input sites."""
    result = np.full((inputs, kernel_map.shape[1]), -1, np.int32)
    rows, columns = np.nonzero(kernel_map >= 0)
    result[kernel_map[rows, columns], columns] = rows
    return result
