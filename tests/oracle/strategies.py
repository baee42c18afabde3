# SPDX-License-Identifier: Apache-2.0
"""Random convolutions: their geometry and sites, and the numbers that networks have.

The structure and one seed are chosen (`choices`); numpy draws the numbers from the seed. So examples shrink
in structure, stay cheap to draw, and are reproducible from what hypothesis prints.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tests.oracle import geometry
from tests.oracle.choices import Choices, Drawn, triple
from tests.oracle.frames import random_sites

__all__ = [
    "KINDS",
    "MOST_SEED",
    "Case",
    "Kind",
    "cases",
    "features_for",
    "make_case",
    "seeds",
    "triples",
    "weights_for",
]

Triple = tuple[int, int, int]
Ints = npt.NDArray[np.int32]
Kind = str
KINDS: tuple[Kind, ...] = ("subm", "strided", "transposed", "inverse")

MOST_SEED = 2**32 - 1
seeds = st.integers(0, MOST_SEED)


def triples(low: int, high: int) -> st.SearchStrategy[Triple]:
    """Three integers in [low, high]."""
    return st.tuples(*[st.integers(low, high)] * 3)


@dataclass(frozen=True)
class Case:
    """One convolution's geometry and the sites it is applied to.

    An inverse convolution is described by its partner: a strided convolution of these fields, which the
    inverse leads back from `out_shape` to `shape`.
    """

    kind: Kind
    sites: Ints
    batch_size: int
    shape: Triple
    out_shape: Triple
    kernel: Triple
    stride: Triple
    padding: Triple
    dilation: Triple
    output_padding: Triple
    channels: tuple[int, int]
    seed: int

    def __repr__(self) -> str:
        shown = (f"{f.name}={getattr(self, f.name)}" for f in fields(self) if f.name != "sites")
        return f"Case({len(self.sites)} sites, {', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # hypothesis would print every field of a dataclass

    @property
    def volume(self) -> int:
        """Number of kernel offsets."""
        return int(np.prod(self.kernel))

    def oracle_maps(self) -> tuple[Ints, Ints, Ints]:
        """Input sites, output sites and kernel map of this convolution."""
        numbers = self.kernel, self.stride, self.padding, self.dilation
        if self.kind == "subm":
            kernel_map = geometry.submanifold_map(self.sites, self.shape, self.kernel, self.dilation)
            return self.sites, self.sites, kernel_map
        if self.kind == "transposed":
            return self.sites, *geometry.transposed_map(self.sites, self.out_shape, *numbers)
        after, kernel_map = geometry.strided_map(self.sites, self.out_shape, *numbers)
        if self.kind == "strided":
            return self.sites, after, kernel_map
        return after, self.sites, geometry.inverse_map(kernel_map, len(self.sites))


def make_case(
    choices: Choices,
    kinds: tuple[Kind, ...] = KINDS,
    *,
    max_sites: int = 500,
    max_channels: int = 64,
    max_cells: int = 20_000,
) -> Case:
    """Kernel 1 to 5 per axis, stride and dilation 1 to 3, padding up to the kernel's reach, batch 1 to 3.

    The grid is at most `max_cells` cells (dense checks allocate it), and large enough for one output.
    """
    kind, seed = choices.pick(kinds), choices.integer(0, MOST_SEED)
    kernel, dilation = triple(choices, 1, 5), triple(choices, 1, 3)
    stride: Triple = (1, 1, 1) if kind == "subm" else triple(choices, 1, 3)
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    extra: Triple = (0, 0, 0)
    if kind == "subm":
        padding = tuple(k // 2 * d for k, d in zip(kernel, dilation, strict=True))
        least = [1, 1, 1]
    else:
        padding = tuple(choices.integer(0, r) for r in reach)
        least = [max(1, r + 1 - 2 * p) for r, p in zip(reach, padding, strict=True)]
    if kind == "transposed":
        extra = tuple(choices.integer(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
        # (n - 1) * s - 2 * p + reach + 1 + extra >= 1
        least = [
            1 + max(0, -(-(2 * p - r - e) // s))
            for s, p, r, e in zip(stride, padding, reach, extra, strict=True)
        ]  # fmt: skip
    sizes = [n + choices.integer(0, 11) for n in least]
    while np.prod(sizes) > max_cells:
        widest = max(range(3), key=lambda i: sizes[i] - least[i])
        if sizes[widest] == least[widest]:
            break
        sizes[widest] = max(least[widest], sizes[widest] // 2)
    shape = (sizes[0], sizes[1], sizes[2])
    out_shape = shape
    if kind != "subm":
        out_shape = geometry.output_shape(
            shape, kernel, stride, padding, dilation, transposed=kind == "transposed", output_padding=extra
        )  # fmt: skip
    batch_size = choices.integer(1, 3)
    count = choices.integer(0, choices.pick((20, max_sites)))
    ordered = choices.pick((False, True))
    sites = random_sites(np.random.default_rng(seed), count, shape, batch_size, ordered=ordered)
    channels = choices.integer(1, max_channels), choices.integer(1, max_channels)
    return Case(
        kind, sites, batch_size, shape, out_shape, kernel, stride, padding, dilation, extra, channels, seed
    )  # fmt: skip


@st.composite
def cases(draw: st.DrawFn, kinds: tuple[Kind, ...] = KINDS, **limits: int) -> Case:
    """What `make_case` makes of hypothesis's choices."""
    return make_case(Drawn(draw), kinds, **limits)


def features_for(rng: np.random.Generator, rows: int, channels: int) -> npt.NDArray[np.float16]:
    """Activations as networks have them: mostly below 4, some exact zeros, a few large."""
    x = rng.normal(0, 1, (rows, channels)) * rng.choice([0.0, 1.0, 1.0, 4.0], (rows, channels))
    return x.astype(np.float16)


def weights_for(
    rng: np.random.Generator, out: int, kernel: Triple, channels: int
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Weight [out, kz, ky, kx, in] that keeps a dense neighbourhood's variance, and a bias of both signs."""
    fan_in = channels * int(np.prod(kernel))
    weight = rng.normal(0, (2 / fan_in) ** 0.5, (out, *kernel, channels)).astype(np.float16)
    return weight, rng.normal(0, 0.1, out).astype(np.float16)
