# SPDX-License-Identifier: Apache-2.0
"""The geometry of one sparse convolution: the single value that capture, ops, exporter and tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from operator import index

from scn_fx.errors import SiteError

__all__ = [
    "MOST_CHANNELS",
    "MOST_EXTENT",
    "MOST_OFFSETS",
    "MOST_SITES",
    "ConvGeometry",
    "Triple",
    "output_spatial_shape",
    "triple",
]

Triple = tuple[int, int, int]

# What the compiled side can number: csrc/core/geometry.h has the same limits.
MOST_EXTENT = 2**30  # that no coordinate reaches, nor padding, or what a kernel spans, added to one
MOST_OFFSETS = 2**15  # of a kernel
MOST_CHANNELS = 2**20  # of a layer
MOST_SITES = 2**31 - 1  # rows are numbered in int32


def triple(value: Sequence[int], what: str, least: int) -> Triple:
    """`value` as (z, y, x); SiteError unless it is three integers from `least` to MOST_EXTENT."""
    try:
        z, y, x = (index(v) for v in value)
    except (TypeError, ValueError):
        z = y = x = least - 1
    if min(z, y, x) < least or max(z, y, x) > MOST_EXTENT:
        raise SiteError(
            f"{what} must be three integers from {least} to {MOST_EXTENT} (z, y, x), got {_text(value)}."
        )
    return z, y, x


def _text(value: object) -> str:
    return str(list(value)) if isinstance(value, Sequence) and not isinstance(value, str) else repr(value)


def output_spatial_shape(
    shape: Triple,
    kernel_size: Triple,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
    *,
    output_padding: Triple = (0, 0, 0),
    transposed: bool = False,
) -> Triple:
    """Output grid of a strided or transposed convolution over a grid of `shape` sites (z, y, x).

    The formulas are those of dense convolutions (`torch.nn.Conv3d` and `torch.nn.ConvTranspose3d`).
    """
    if transposed:
        out = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1 + op
            for n, k, s, p, d, op in zip(
                shape, kernel_size, stride, padding, dilation, output_padding, strict=True
            )
        ]
    else:
        out = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(shape, kernel_size, stride, padding, dilation, strict=True)
        ]
    if min(out) < 1:
        raise SiteError(
            f"A kernel of {list(kernel_size)} with stride {list(stride)}, padding {list(padding)} and "
            f"dilation {list(dilation)} leaves no output site on a grid of {list(shape)} (it would be {out})."
        )
    return out[0], out[1], out[2]


@dataclass(frozen=True)
class ConvGeometry:
    """Which input site each kernel offset of each output site reads. All triples are (z, y, x).

    Offsets are numbered with x fastest. With offset k, an output site reads the input coordinate
    ``out * stride - padding + k * dilation``; a transposed convolution relates them the other way round,
    ``out = in * stride - padding + k * dilation``. A submanifold convolution keeps its sites: stride 1 and
    padding ``(kernel // 2) * dilation``, as spconv defines it whatever the module's own padding says. An
    inverse convolution swaps the two sides of its partner's kernel map and returns to the partner's input
    sites.
    """

    kernel_size: Triple
    stride: Triple
    padding: Triple
    dilation: Triple
    output_padding: Triple
    input_spatial_shape: Triple
    output_spatial_shape: Triple
    subm: bool = False
    inverse: bool = False
    transposed: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0),
            ("input_spatial_shape", 1), ("output_spatial_shape", 1),
        ):  # fmt: skip
            object.__setattr__(self, name, triple(getattr(self, name), name, least))
        if self.subm + self.inverse + self.transposed > 1:
            raise SiteError("A convolution is submanifold, inverse or transposed: at most one of the three.")
        if self.volume > MOST_OFFSETS:
            raise SiteError(
                f"kernel_size {list(self.kernel_size)} has {self.volume} offsets; a kernel has "
                f"{MOST_OFFSETS} at most."
            )
        self._check_reach()

    def _check_reach(self) -> None:
        """Coordinates, and what kernels compute from them on the way, must fit in 32 bits."""
        # The side whose coordinates are multiplied by the stride: the input of a transposed convolution, or
        # of an inverse one.
        sides = self.output_spatial_shape, self.input_spatial_shape
        coarse, fine = reversed(sides) if self.transposed or self.inverse else sides
        for axis in range(3):
            reach = self.dilation[axis] * self.kernel_size[axis] + 2 * self.padding[axis]
            if max(coarse[axis] * self.stride[axis], fine[axis]) + reach > MOST_EXTENT:
                raise SiteError(
                    f"kernel_size {list(self.kernel_size)}, stride {list(self.stride)}, padding "
                    f"{list(self.padding)} and dilation {list(self.dilation)} reach further from a grid of "
                    f"{list(self.input_spatial_shape)} than can be numbered ({MOST_EXTENT} cells along "
                    "an axis)."
                )

    @property
    def volume(self) -> int:
        """Number of kernel offsets."""
        return prod(self.kernel_size)

    def inverted(self) -> ConvGeometry:
        """Geometry of the inverse convolution of this one, which leads back to its input grid."""
        return replace(
            self,
            input_spatial_shape=self.output_spatial_shape,
            output_spatial_shape=self.input_spatial_shape,
            inverse=True,
            transposed=False,
        )

    @classmethod
    def submanifold(
        cls, shape: Sequence[int], kernel_size: Sequence[int], dilation: Sequence[int]
    ) -> ConvGeometry:
        """Geometry of a submanifold convolution over a grid of `shape` (z, y, x)."""
        kernel, spread = triple(kernel_size, "kernel_size", 1), triple(dilation, "dilation", 1)
        padding = tuple((k // 2) * d for k, d in zip(kernel, spread, strict=True))
        grid = triple(shape, "spatial shape", 1)
        return cls(kernel, (1, 1, 1), padding, spread, (0, 0, 0), grid, grid, subm=True)  # type: ignore[arg-type]

    @classmethod
    def strided(
        cls,
        shape: Sequence[int],
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        *,
        output_padding: Sequence[int] = (0, 0, 0),
        transposed: bool = False,
    ) -> ConvGeometry:
        """Geometry of a strided (or transposed) convolution over a grid of `shape` (z, y, x)."""
        grid = triple(shape, "spatial shape", 1)
        k, s = triple(kernel_size, "kernel_size", 1), triple(stride, "stride", 1)
        p, d = triple(padding, "padding", 0), triple(dilation, "dilation", 1)
        extra = triple(output_padding, "output_padding", 0)
        out = output_spatial_shape(grid, k, s, p, d, output_padding=extra, transposed=transposed)
        return cls(k, s, p, d, extra, grid, out, transposed=transposed)
