# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of every operator, exact where the numeric contract is exact.

Features are [N, C]; weights [out, kz, ky, kx, in]; kernel maps int32 [M, K]. Convolutions and additions
return the *unrounded* float32 result y: before the activation, and before rounding to an output precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import factorial

import numpy as np
import numpy.typing as npt

from tests.oracle.exact import fma32

__all__ = [
    "FIXED_ORDER_CHANNELS",
    "activate",
    "activation_error",
    "add_fp16",
    "add_int8",
    "convolution_fixed_order",
    "convolution_float64",
    "convolution_int8",
    "convolution_magnitude",
    "float16_half_ulp",
    "gamma",
    "quantise",
    "relu",
    "scatter_dense",
]

Array = npt.NDArray[np.generic]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

FIXED_ORDER_CHANNELS = 8
"""fp16 convolutions with at most this many input channels have one prescribed summation order."""


def quantise(v: npt.ArrayLike, amax: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """`clamp(round_half_even(v * (127 / amax)), -128, 127)`, every step in float32."""
    amax = np.asarray(amax, np.float32)
    assert (amax > 0).all() and np.isfinite(amax).all(), f"ranges must be finite and > 0, got {amax}"
    assert not np.isnan(np.asarray(v, np.float32)).any(), "int8 has no NaN"
    with np.errstate(over="ignore"):
        scaled = np.asarray(v, np.float32) * (np.float32(127) / amax)
    return np.clip(np.rint(scaled), -128, 127).astype(np.int8)


def _scale(amax: npt.ArrayLike) -> Float32:
    return np.asarray(np.asarray(amax, np.float32) / np.float32(127), np.float32)


def _by_offset(weight: Array) -> Array:
    """[out, kz, ky, kx, in] → [K, in, out]."""
    return np.ascontiguousarray(weight.reshape(weight.shape[0], -1, weight.shape[-1]).transpose(1, 2, 0))


def _pairs(kernel_map: Ints) -> Iterator[tuple[int, npt.NDArray[np.int64], Ints]]:
    """For each offset with work: its number, the output rows and the input rows they read."""
    for k in range(kernel_map.shape[1]):
        outputs = np.flatnonzero(kernel_map[:, k] >= 0)
        if len(outputs):
            yield k, outputs, kernel_map[outputs, k]


def convolution_int8(
    x: Array, weight: Array, bias: Array, kernel_map: Ints, input_amax: float, weight_amax: npt.ArrayLike
) -> Float32:
    """`fma(float(Σ q(x) q(w)), s_x * s_w, bias)` with an exact int32 sum.

    Matrix products run in float32: |q| <= 128, so every partial sum over C channels is an integer of at most
    C * 2^14, exact below 2^24. Sums over offsets are int32, exact below 2^31.
    """
    channels = weight.shape[-1]
    volume = int(np.prod(weight.shape[1:4]))
    assert volume * channels * 2**14 < 2**31, f"{volume} offsets x {channels} channels overflow int32"
    exact: type[np.floating] = np.float32 if channels * 2**14 <= 2**24 else np.float64
    amax = np.asarray(weight_amax, np.float32)
    qx = quantise(np.asarray(x, np.float32), input_amax).astype(exact)
    qw = _by_offset(quantise(weight, amax.reshape(-1, 1, 1, 1, 1))).astype(exact)
    total = np.zeros((len(kernel_map), weight.shape[0]), np.int32)
    for k, outputs, inputs in _pairs(kernel_map):
        total[outputs] += (qx[inputs] @ qw[k]).astype(np.int32)
    return fma32(total.astype(np.float32), _scale(input_amax) * _scale(amax), bias)


def convolution_fixed_order(x: Array, weight: Array, bias: Array, kernel_map: Ints) -> Float32:
    """fp16 and fp32 convolutions of an input layer: float32 fma, offsets ascending, then channels, then the
    bias.

    A product of two float16 numbers has at most 22 significant bits and is exact in float32, so that for
    those `fma(x, w, sum)` is the plain float32 `sum + x * w` (the oracle's tests check that).
    """
    assert weight.shape[-1] <= FIXED_ORDER_CHANNELS
    exact = np.asarray(x).dtype == weight.dtype == np.float16
    x32, w32 = np.asarray(x, np.float32), _by_offset(weight.astype(np.float32))
    total = np.zeros((len(kernel_map), weight.shape[0]), np.float32)
    for k, outputs, inputs in _pairs(kernel_map):
        part = total[outputs]
        for c in range(weight.shape[-1]):
            column, row = x32[inputs, c, None], w32[k, c]
            part = part + column * row if exact else fma32(column, row, part)
        total[outputs] = part
    return total + np.asarray(bias, np.float32)


def convolution_float64(x: Array, weight: Array, bias: Array, kernel_map: Ints) -> Float64:
    """Convolution in float64: the reference of layers whose summation order is free."""
    x64, w64 = np.asarray(x, np.float64), _by_offset(np.asarray(weight, np.float64))
    total = np.zeros((len(kernel_map), weight.shape[0]), np.float64)
    for k, outputs, inputs in _pairs(kernel_map):
        total[outputs] += x64[inputs] @ w64[k]
    return total + np.asarray(bias, np.float64)


def convolution_magnitude(x: Array, weight: Array, bias: Array, kernel_map: Ints) -> Float64:
    """`Σ |x| |w| + |bias|` for each output value: what rounding errors are relative to."""
    return convolution_float64(np.abs(x), np.abs(weight), np.abs(bias), kernel_map)


def gamma(terms: int, unit: float = 2.0**-24) -> float:
    """Higham's gamma_n = n u / (1 - n u): n roundings, in any order, move a sum by at most gamma_n Σ|terms|.

    A sum of `terms` products and a bias, each product rounded, has n = terms + 1. `unit` is the unit
    roundoff: 2^-24 for IEEE float32; tensor cores that truncate have 2^-23. Source: Higham, "Accuracy and
    Stability of Numerical Algorithms", section 3.1.
    """
    n = terms + 1
    assert n * unit < 1
    return n * unit / (1 - n * unit)


def float16_half_ulp(magnitude: npt.ArrayLike) -> Float64:
    """Largest error of rounding values of at most this magnitude to float16."""
    size = np.asarray(magnitude, np.float64)
    exponent = np.where(size > 0, np.frexp(size)[1] - 1, -14)
    return np.ldexp(1.0, np.maximum(exponent, -14) - 11)


def add_int8(a: Array, b: Array, amax0: float, amax1: float) -> Float32:
    """`fma(q(a), s_a, q(b) * s_b)` with each operand quantised in its own range."""
    qa = quantise(np.asarray(a, np.float32), amax0).astype(np.float32)
    qb = quantise(np.asarray(b, np.float32), amax1).astype(np.float32)
    return fma32(qa, _scale(amax0), qb * _scale(amax1))


def add_fp16(a: Array, b: Array) -> Float32:
    """Float32 sum of float16 (or, in fp32 mode, float32) operands."""
    return np.asarray(a, np.float32) + np.asarray(b, np.float32)


def multiply_int8(a: Array, b: Array, amax0: float, amax1: float) -> Float32:
    """`(q(a) * q(b)) * (s_a * s_b)` with each operand quantised in its own range."""
    qa = quantise(np.asarray(a, np.float32), amax0).astype(np.float32)
    qb = quantise(np.asarray(b, np.float32), amax1).astype(np.float32)
    return np.asarray((qa * qb) * np.float32(_scale(amax0) * _scale(amax1)), np.float32)


def multiply_fp16(a: Array, b: Array) -> Float32:
    """Float32 product of float16 (or, in fp32 mode, float32) operands."""
    return np.asarray(a, np.float32) * np.asarray(b, np.float32)


def affine(x: Float32, scale: Float32, shift: Float32) -> Float32:
    """`x * scale + shift`, channel by channel, both operations rounded to float32."""
    return np.asarray(x * scale, np.float32) + shift


def group_norm(x: Float32, groups: int, epsilon: float, scale: Float32, shift: Float32) -> Float32:
    """Each row over groups of neighbouring channels, in float64, sums in the order of channels."""
    made = np.empty_like(x)
    count = x.shape[1] // groups
    for first in range(0, x.shape[1], count):
        part = x[:, first : first + count].astype(np.float64)
        mean = np.cumsum(part, 1)[:, -1:] / count
        centred = part - mean
        variance = np.cumsum(centred * centred, 1)[:, -1:] / count
        columns = slice(first, first + count)
        normal = centred / np.sqrt(variance + np.float64(np.float32(epsilon)))
        made[:, columns] = normal * scale[columns].astype(np.float64) + shift[columns].astype(np.float64)
    return made


def pool(x: Float32, kernel_map: Ints, kind: str) -> Float32:
    """`max`, `mean` or `sum` of the neighbours of each row, in the order of offsets; zero without any."""
    made = np.zeros((len(kernel_map), x.shape[1]), np.float32)
    for row, entries in enumerate(kernel_map):
        found = x[entries[entries >= 0]]
        if len(found) == 0:
            continue
        if kind == "max":
            best = found[0]
            for other in found[1:]:
                best = np.where((other <= best) | np.isnan(best), best, other)
            made[row] = best
            continue
        total = np.zeros(x.shape[1], np.float32)
        for other in found:
            total = total + other
        made[row] = total / np.float32(len(found)) if kind == "mean" else total
    return made


def global_pool(x: Float32, sites: Ints, batch_size: int, kind: str) -> Float32:
    """`max`, `mean` or `sum` of the rows of each batch entry; zero without any.

    Rows are taken in ascending order of their sites. Sums are float64: those of 256 rows at a time, one after
    another, then these, likewise.
    """
    made = np.zeros((batch_size, x.shape[1]), np.float32)
    for entry in range(batch_size):
        rows = np.flatnonzero(sites[:, 0] == entry)
        if len(rows) == 0:
            continue
        found = x[sorted(rows, key=lambda row: tuple(sites[row]))]
        if kind == "max":
            best = found[0]
            for other in found[1:]:
                best = np.where((other <= best) | np.isnan(best), best, other)
            made[entry] = best
            continue
        total = np.zeros(x.shape[1], np.float64)
        for begin in range(0, len(found), 256):
            part = np.zeros(x.shape[1], np.float64)
            for row in found[begin : begin + 256]:
                part = part + row.astype(np.float64)
            total = total + part
        made[entry] = (total / len(found) if kind == "mean" else total).astype(np.float32)
    return made


def relu(x: Array) -> Array:
    """`max(x, 0)`, keeping the dtype; NaN stays NaN, a negative zero becomes a positive one."""
    return np.where(x <= 0, x.dtype.type(0), x)


def leaky_relu(x: Float32, slope: float) -> Float32:
    """`x` where it is positive, elsewhere `x` times the float32 slope, rounded."""
    below = (x * np.float32(slope)).astype(np.float32)
    return np.asarray(np.where(x > 0, x, below), np.float32)


def _exp(z: Float32) -> Float32:
    """e^z = 2^n e^(z - n ln 2), n the integer nearest to z / ln 2, each operation rounded to float32.

    ln 2 is 355/512 less 0x1.bd0106p-13; the series of e^r ends with r^7. z is taken between -86 and 89.
    """
    z = np.clip(z, np.float32(-86), np.float32(89))
    n = np.rint(z * np.float32(float.fromhex("0x1.715476p+0")))
    r = (z - n * np.float32(355 / 512)) + n * np.float32(float.fromhex("0x1.bd0106p-13"))
    total = np.full_like(r, np.float32(1) / np.float32(5040))
    for k in range(6, -1, -1):
        total = total * r + np.float32(1) / np.float32(factorial(k))
    whole = np.where(np.isnan(n), np.float32(0), n).astype(np.int32)
    with np.errstate(over="ignore"):
        return np.asarray(np.ldexp(total, whole), np.float32)


def silu(x: Float32) -> Float32:
    """`x / (1 + e^-x)`."""
    return np.asarray(x / (np.float32(1) + _exp(-x)), np.float32)


def gelu(x: Float32) -> Float32:
    """`x Φ(x)`, Φ(-|x|) after Abramowitz and Stegun 7.1.26 with halved coefficients."""
    one, half = np.float32(1), np.float32(-0.5)
    t = one / (one + np.abs(x) * np.float32(0.3275911 / np.sqrt(2.0)))
    tail = np.full_like(x, 1.061405429 / 2)
    for a in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = tail * t + np.float32(a / 2)
    tail = tail * t * _exp(x * x * half)
    return np.asarray(x * np.where(x > 0, one - tail, tail), np.float32)


def gelu_tanh(x: Float32) -> Float32:
    """`x / (1 + e^(-2 sqrt(2/π) (x + 0.044715 x³)))`."""
    u = x + x * x * x * np.float32(0.044715)
    return np.asarray(x / (np.float32(1) + _exp(u * np.float32(-2 * np.sqrt(2 / np.pi)))), np.float32)


def _hardsigmoid(x: Float32) -> Float32:
    return np.asarray(np.minimum(relu(x + np.float32(3)), np.float32(6)) / np.float32(6), np.float32)


_ONE, _TWO = np.float32(1), np.float32(2)
_FORMULAS: dict[str, Callable[[Float32], Array]] = {
    "SiLU": silu,
    "Sigmoid": lambda x: _ONE / (_ONE + _exp(-x)),
    "Tanh": lambda x: _ONE - _TWO / (_ONE + _exp(x * _TWO)),
    "GELU": gelu,
    "GELUTanh": gelu_tanh,
    "ReLU6": lambda x: np.minimum(relu(x), np.float32(6)),
    "Hardswish": lambda x: x * _hardsigmoid(x),
    "Hardsigmoid": _hardsigmoid,
}


def activate(x: Array, kind: str, parameter: float = 0.0) -> Array:
    """An activation by its name in files, in float32; the dtype of `x` stays."""
    wide = np.asarray(x, np.float32)
    if kind == "None":
        return x
    if kind == "ReLU":
        return relu(x)
    if kind == "LeakyReLU":
        return leaky_relu(wide, parameter).astype(x.dtype)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        return np.asarray(_FORMULAS[kind](wide), np.float32).astype(x.dtype)


def activation_error(
    x: Array, error: npt.NDArray[np.float64], kind: str, parameter: float
) -> npt.NDArray[np.float64]:
    """How far results may be apart whose arguments are `x`, give or take `error`.

    The largest slope times that, and rounding errors of the function itself (ReLU and nothing have none).
    """
    if kind in ("None", "ReLU"):
        return error
    steepest = max(1.0, abs(parameter)) if kind == "LeakyReLU" else 1.5  # Hardswish; SiLU and GELU have less
    own = 2.0**-21 * (np.abs(np.asarray(x, np.float64)) * steepest + 1.0)
    return np.asarray(error * steepest + own, np.float64)


def scatter_dense(features: Array, sites: Ints, batch_size: int, shape: tuple[int, ...]) -> Array:
    """Dense map [B, C, *shape], zero where there is no site."""
    dense = np.zeros((batch_size, features.shape[1], *shape), features.dtype)
    b, z, y, x = sites.T
    dense[b, :, z, y, x] = features
    return dense
