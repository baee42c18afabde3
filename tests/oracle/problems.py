# SPDX-License-Identifier: Apache-2.0
"""Single convolutions below the engine, and what they must give.

The tests of all kernels run them, on the CPU and on a GPU, and the benchmark of layers times them.

A problem is a few choices and a seed. `problems` lets hypothesis choose, `random_problem` a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tests.core.activations import EVERY, NONE, Named
from tests.oracle import numerics, strategies
from tests.oracle.choices import Choices, Drawn, Seeded
from tests.oracle.compare import assert_same_bits, assert_within
from tests.oracle.exact import round_to_float16
from tests.oracle.strategies import KINDS, Case, Kind

__all__ = ["PRECISIONS", "WIDTHS", "Expected", "Operands", "Problem", "problems", "random_problem"]

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int32]

PRECISIONS = ("int8", "fp16", "fp32")
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 64, 65, 96, 100, 127, 128, 129, 192, 255, 256)
"""Channels: where kernels change their tiles, and what lies between."""
INPUT_AMAX, OUTPUT_AMAX = 2.5, 1.5
_FULL = 9.0
"""A value that clips to -128 or 127 in a range of 1."""


class Operands(NamedTuple):
    """Features [N, in], weight [out, kz, ky, kx, in], bias [out] or None, kernel map [M, K], ranges."""

    features: Array
    weight: Array
    bias: Array | None
    kernel_map: Ints
    input_amax: float
    weight_amax: npt.NDArray[np.float32]
    output_amax: float


class Expected(NamedTuple):
    """The result, and how far off a right one may be; None: not a bit."""

    values: Array
    bound: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class Problem:
    """A convolution, its precisions, and what follows its sums."""

    case: Case
    precision: str
    output_precision: str
    activation: Named = NONE
    biased: bool = True
    stores_int8: bool = False
    """Whether the result is stored as the next layer's int8."""
    nonnegative: bool = False
    """Whether features are those behind a ReLU."""
    full_scale: bool = False
    """int8: whether every product is ±128 · ±128, or nearly, so that sums are as large as they can be."""

    def __repr__(self) -> str:
        flags = [f for f in ("biased", "stores_int8", "nonnegative", "full_scale") if getattr(self, f)]
        words = [self.precision, "to", self.output_precision, *self.activation, *flags]
        return f"Problem({' '.join(map(str, words))}, {self.case!r})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # hypothesis would print every field of a dataclass

    def operands_for(self, rows: int, kernel_map: Ints) -> Operands:
        """The numbers of this problem, for a kernel map that reads so many rows.

        Weights are float16, features too but for fp32, whose values float16 does not have.
        """
        rng = np.random.default_rng(self.case.seed)
        inputs, outputs = self.case.channels
        x: Array = strategies.features_for(rng, rows, inputs)
        weight, bias = strategies.weights_for(rng, outputs, self.case.kernel, inputs)
        peak = np.abs(weight.astype(np.float32)).max(axis=(1, 2, 3, 4))
        weight_amax = np.maximum(peak * np.float32(0.9), np.float32(1e-3))  # 0.9: some weights clip
        input_amax = INPUT_AMAX
        if self.precision == "fp32":
            x = (x + rng.normal(0, 1e-4, x.shape)).astype(np.float32)
        if self.full_scale:
            x, weight = (rng.choice([-_FULL, _FULL], a.shape).astype(np.float16) for a in (x, weight))
            input_amax, weight_amax = 1.0, np.ones(outputs, np.float32)
        x = np.abs(x) if self.nonnegative else x
        given = bias if self.biased else None
        # products of ±1.02: sums grow with the root of their number
        output_amax = 2.0 * (self.case.volume * inputs) ** 0.5 if self.full_scale else OUTPUT_AMAX
        output_amax = float(np.float32(output_amax)) if self.stores_int8 else 0.0
        return Operands(x, weight, given, kernel_map, input_amax, weight_amax, output_amax)

    @cached_property
    def operands(self) -> Operands:
        """Its numbers, over the kernel map that the oracle makes of its sites."""
        inputs, _, kernel_map = self.case.oracle_maps()
        return self.operands_for(len(inputs), kernel_map)

    def arguments(self, operands: Operands | None = None) -> dict[str, Any]:
        """Arguments of the compiled module's ConvolutionProblem."""
        o = operands or self.operands
        int8 = self.precision == "int8"
        return {
            "features": o.features,
            "weight": o.weight,
            "bias": o.bias,
            "kernel_map": o.kernel_map,
            "precision": self.precision,
            "output_precision": self.output_precision,
            "activation": self.activation,
            "input_amax": o.input_amax if int8 else 0.0,
            "weight_amax": o.weight_amax if int8 else None,
            "output_amax": o.output_amax,
            "name": "conv",
        }

    @cached_property
    def expected(self) -> Expected:
        """What every right kernel gives."""
        o = self.operands
        x, weight, kernel_map = o.features, o.weight, o.kernel_map
        bias = np.zeros(len(weight), np.float16) if o.bias is None else o.bias
        bound: npt.NDArray[np.float64] | None = None
        if self.precision == "int8":
            y: Array = numerics.convolution_int8(x, weight, bias, kernel_map, o.input_amax, o.weight_amax)
        elif x.shape[1] <= numerics.FIXED_ORDER_CHANNELS:
            y = numerics.convolution_fixed_order(x, weight, bias, kernel_map)
        else:
            y = numerics.convolution_float64(x, weight, bias, kernel_map)
            terms = kernel_map.shape[1] * x.shape[1] + 1
            bound = numerics.gamma(terms) * numerics.convolution_magnitude(x, weight, bias, kernel_map)
            bound = numerics.activation_error(y, bound, *self.activation)
        y = numerics.activate(y.astype(np.float32), *self.activation)
        if self.output_precision == "fp16":
            if bound is not None:
                bound = bound + 2 * numerics.float16_half_ulp(np.abs(y) + bound)
            y = round_to_float16(y).values
        if not self.stores_int8:
            return Expected(y, bound)
        if bound is not None:  # in steps of int8, of which rounding takes or gives one
            bound = bound * (127 / o.output_amax) * (1 + 2.0**-20) + 1
        return Expected(numerics.quantise(y.astype(np.float32), o.output_amax), bound)

    def check(self, got: Array, what: str) -> None:
        """A kernel's result is right."""
        values, bound = self.expected
        if bound is None:
            assert_same_bits(got, values, f"{what} of {self!r}")
        else:
            assert got.dtype == values.dtype, f"{what}: {got.dtype}, expected {values.dtype}"
            assert_within(got, values, bound, f"{what} of {self!r}")


def _make(
    choices: Choices,
    precisions: Sequence[str],
    kinds: tuple[Kind, ...],
    widths: Sequence[int],
    max_sites: int,
    max_volume: int,
) -> Problem:
    case = strategies.make_case(choices, kinds, max_sites=max_sites, max_cells=8000)
    inputs, outputs = choices.pick(widths), choices.pick(widths)
    # the oracle's time: few products where there are many offsets and channels
    while case.volume * inputs * outputs > max_volume:
        inputs, outputs = (max(1, inputs // 2), outputs) if inputs >= outputs else (inputs, outputs // 2)
    precision = choices.pick(precisions)
    stores_int8 = choices.pick((False, True))
    rounded = choices.pick(("fp16", "fp32" if precision == "fp32" else "int8"))
    full_scale = precision == "int8" and choices.integer(0, 3) == 3
    return Problem(
        replace(case, channels=(inputs, outputs)),
        precision,
        rounded,
        choices.pick(EVERY),
        biased=choices.integer(0, 4) < 4,
        stores_int8=stores_int8,
        nonnegative=choices.pick((False, True)),
        full_scale=full_scale,
    )


def _limited(options: dict[str, Any]) -> dict[str, Any]:
    usual = {
        "precisions": PRECISIONS, "kinds": KINDS, "widths": WIDTHS, "max_sites": 300, "max_volume": 400_000,
    }  # fmt: skip
    return usual | options


@st.composite
def problems(draw: st.DrawFn, **options: Any) -> Problem:
    """Problems of hypothesis's choice; `options` as those of `random_problem`."""
    return _make(Drawn(draw), **_limited(options))


def random_problem(seed: int, **options: Any) -> Problem:
    """The problem of a seed.

    Options: `precisions`, `kinds` and `widths` (channels) to choose from, `max_sites`, and `max_volume`, the
    most offsets · inputs · outputs: wider problems are made narrower.
    """
    return _make(Seeded(seed), **_limited(options))
