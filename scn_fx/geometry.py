# SPDX-License-Identifier: Apache-2.0
"""The geometry of one sparse convolution: the single value that capture, ops, exporter and tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from scn_fx.errors import SiteError

__all__ = ["ConvGeometry", "Triple", "output_spatial_shape"]

Triple = tuple[int, int, int]


def _triple(value: Sequence[int], what: str, least: int) -> Triple:
    values = tuple(int(v) for v in value)
    if len(values) != 3 or min(values) < least:
        raise SiteError(f"{what} must be three integers >= {least} (z, y, x), got {list(value)}.")
    return values[0], values[1], values[2]


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
            object.__setattr__(self, name, _triple(getattr(self, name), name, least))
        if self.subm + self.inverse + self.transposed > 1:
            raise SiteError("A convolution is submanifold, inverse or transposed: at most one of the three.")

    @property
    def volume(self) -> int:
        """Number of kernel offsets."""
        return prod(self.kernel_size)

    @classmethod
    def submanifold(
        cls, shape: Sequence[int], kernel_size: Sequence[int], dilation: Sequence[int]
    ) -> ConvGeometry:
        """Geometry of a submanifold convolution over a grid of `shape` (z, y, x)."""
        kernel, spread = _triple(kernel_size, "kernel_size", 1), _triple(dilation, "dilation", 1)
        padding = tuple((k // 2) * d for k, d in zip(kernel, spread, strict=True))
        grid = _triple(shape, "spatial shape", 1)
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
        grid = _triple(shape, "spatial shape", 1)
        k, s = _triple(kernel_size, "kernel_size", 1), _triple(stride, "stride", 1)
        p, d = _triple(padding, "padding", 0), _triple(dilation, "dilation", 1)
        extra = _triple(output_padding, "output_padding", 0)
        out = output_spatial_shape(grid, k, s, p, d, output_padding=extra, transposed=transposed)
        return cls(k, s, p, d, extra, grid, out, transposed=transposed)
