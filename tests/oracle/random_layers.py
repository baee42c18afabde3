# SPDX-License-Identifier: Apache-2.0
"""The layers of random networks, as they are drawn one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.oracle import builder, strategies
from tests.oracle.choices import Choices, triple
from tests.oracle.dialect import ACTIVATION_NODES
from tests.oracle.geometry import output_shape
from tests.oracle.numerics import FIXED_ORDER_CHANNELS

__all__ = ["Drawing", "Kind", "Sparse", "Triple"]

Triple = tuple[int, int, int]
SLOPES = (0.01, 0.25, 1.5, -0.5)


@dataclass(frozen=True)
class Kind:
    """Which networks are drawn."""

    inputs: Sequence[int]
    """Channels of the frame,"""
    widths: Sequence[int]
    """and of every other value."""
    precisions: Sequence[str]
    """Of layers; empty: their nodes name none."""
    exact: bool
    """No node whose order of sums is free."""
    blocks: Sequence[str] = (
        *("subm", "residual", "residual", "strided", "transposed", "inverse", "activation", "sums"),
        *("concat", "concat", "affine", "gate", "pool", "norm", "union"),
    )
    max_blocks: int = 4
    activations: Sequence[str] = ("ReLU",) * 6 + tuple(ACTIVATION_NODES.values())
    """Mostly ReLU: the kernels of a GPU that finish other activations are few, and one for all layers."""
    max_kernel: int = 3
    max_stride: int = 2
    dilations: Sequence[Triple] = ((1, 1, 1), (1, 2, 1))
    shape: tuple[Triple, Triple] = ((3, 4, 4), (10, 14, 14))
    """Smallest and largest grid of the frame."""
    max_cells: int = 20_000
    """Of any layer's grid."""
    max_batch: int = 2
    counts: Sequence[int] = ()
    """Numbers of sites that are tried besides any up to `max_sites`."""
    max_sites: int = 150
    ndim: int = 3
    """Dimensions; the leading axes have one cell where they are fewer than three."""

    def flat(self, numbers: Triple) -> Triple:
        """A triple with 1 along the axes that the network lacks."""
        lead = 3 - self.ndim
        return (1,) * lead + numbers[lead:]  # type: ignore[return-value]


@dataclass(frozen=True)
class Sparse:
    """A value while the network is drawn: its tensor, channels, grid, and a name of its site set."""

    tensor: str
    channels: int
    shape: Triple
    sites: str


@dataclass
class Drawing:
    """The network so far."""

    kind: Kind
    choices: Choices
    rng: np.random.Generator
    pieces: list[builder.Piece] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    partners: list[tuple[str, Sparse, Sparse, dict[str, Triple]]] = field(default_factory=list)
    made: dict[str, list[Sparse]] = field(default_factory=dict)
    """Values so far, by their site sets."""

    def _value(self, value: Sparse) -> Sparse:
        self.made.setdefault(value.sites, []).append(value)
        return value

    def _name(self, word: str, more: str = "") -> str:
        self.words.append(f"{word} {more}".rstrip())
        return f"{word}{len(self.pieces)}"

    def _amax(self) -> float:
        """Activations are about 1: small ranges clip, large ones are coarse; both must agree."""
        return float(np.float32(self.rng.uniform(0.5, 6.0)))

    def _precisions(self, channels: int) -> dict[str, Any]:
        """Precision, output precision and the input range of a convolution or Add."""
        if not self.kind.precisions:
            return {}
        free = self.kind.exact and channels > FIXED_ORDER_CHANNELS
        precision = "int8" if free else self.choices.pick(self.kind.precisions)
        rounded = self.choices.pick(("int8", "fp16")) if "int8" in self.kind.precisions else "fp16"
        return {"precision": precision, "output_precision": rounded}

    def _activation(self) -> tuple[str, dict[str, float]]:
        """An activation and the attributes of its node."""
        name = self.choices.pick(self.kind.activations)
        return name, {"alpha": self.choices.pick(SLOPES)} if name == "LeakyReLU" else {}

    def convolution(
        self, x: Sparse, kind: str, active: bool, out: int | None = None, same_grid: bool = False
    ) -> Sparse:
        """Appends a convolution of this kind with a drawn geometry.

        One that would leave the grid without a cell, or with too many, becomes submanifold.
        """
        kernel = self.kind.flat(triple(self.choices, 1, self.kind.max_kernel))
        if same_grid:
            kernel = (kernel[0] | 1, kernel[1] | 1, kernel[2] | 1)
        dilation = self.kind.flat(self.choices.pick(self.kind.dilations))
        stride = triple(self.choices, 1, 1 if kind == "subm" or same_grid else self.kind.max_stride)
        stride = self.kind.flat(stride)
        padding = tuple(k // 2 * d for k, d in zip(kernel, dilation, strict=True))
        shape = x.shape
        if kind != "subm":
            shape = output_shape(x.shape, kernel, stride, padding, dilation, transposed=kind == "transposed")
            if min(shape) < 1 or np.prod(shape) > self.kind.max_cells:
                kind, stride, shape = "subm", (1, 1, 1), x.shape
        numbers: dict[str, Triple] = {"stride": stride, "padding": padding, "dilation": dilation}
        width = out or self.choices.pick(self.kind.widths)
        name = self._name(kind, f"{kernel}/{stride}/{dilation} {x.channels}->{width}")
        # submanifold layers of equal geometry on one site set share a rulebook, as an indice_key does
        shares = kind == "subm" and self.choices.pick((False, True))
        rulebook = f"{x.sites}_{kernel}_{dilation}" if shares else name
        y = Sparse(name, width, shape, x.sites if kind == "subm" else name)
        self._append(name, x, y, kernel, numbers, kind, active, rulebook)
        if kind == "strided":
            self.partners.append((rulebook, x, y, {"kernel": kernel, **numbers}))
        return self._value(y)

    def inverse(self, x: Sparse, active: bool) -> Sparse:
        """Appends the inverse of the strided convolution that made x's site set, and that one if need be."""
        if all(p[2].sites != x.sites for p in self.partners):
            x = self.convolution(self.convolution(x, "strided", True), "subm", active)
        made = [p for p in self.partners if p[2].sites == x.sites]
        if not made:
            return x  # the strided layer would have left no output
        rulebook, before, _, numbers = made[0]
        numbers = dict(numbers)
        kernel = numbers.pop("kernel")
        name = self._name("inverse")
        y = Sparse(name, self.choices.pick(self.kind.widths), before.shape, before.sites)
        self._append(name, x, y, kernel, numbers, "inverse", active, rulebook)
        return self._value(y)

    def _append(
        self,
        name: str,
        x: Sparse,
        y: Sparse,
        kernel: Triple,
        numbers: dict[str, Triple],
        kind: str,
        active: bool,
        rulebook: str,
    ) -> None:
        weight, bias = strategies.weights_for(self.rng, y.channels, kernel, x.channels)
        ranges: dict[str, Any] = self._precisions(x.channels)
        if ranges:
            peak = np.abs(weight).max(axis=(1, 2, 3, 4)).astype(np.float32)
            ranges |= {"input_range": self._amax(), "weight_ranges": np.maximum(peak, 1e-3).tolist()}
        activation, attributes = self._activation() if active else ("None", {})
        self.pieces.append(
            builder.convolution(
                name,
                x.tensor,
                y.tensor,
                weight,
                bias,
                input_shape=x.shape,
                output_shape=y.shape,
                rulebook=rulebook,
                activation=activation,
                **attributes,
                **{k: kind == k for k in ("subm", "inverse", "transposed")},
                **numbers,
                **ranges,
            )
        )

    def residual(self, x: Sparse) -> Sparse:
        """Convolution, activation, convolution, Add with x, activation: the block of CenterPoint."""
        inner = self.convolution(self.convolution(x, "subm", True), "subm", False, out=x.channels)
        return self.activation(self._add(inner, x))

    def sums(self, x: Sparse) -> Sparse:
        """Sums of sums, in any nesting, of x and convolutions of it; some sums are read twice.

        Convolutions come before the first Add or between them: which one an Add moves into depends on that.
        """
        waiting = [x, self.convolution(x, "subm", self.choices.pick((False, True)), out=x.channels)]
        sums: list[Sparse] = []
        for _ in range(self.choices.integer(2, 4)):
            if len(waiting) < 2 or self.choices.pick((False, True)):
                source = self.choices.pick([x, *sums])
                made = self.convolution(source, "subm", self.choices.pick((False, True)), out=x.channels)
                waiting.append(made)
            left = waiting.pop(self.choices.integer(0, len(waiting) - 1))
            right = waiting.pop(self.choices.integer(0, len(waiting) - 1))
            sums.append(self._add(*self.choices.pick(((left, right), (right, left)))))
            waiting.append(sums[-1])
        for last in waiting[:-1]:
            sums.append(self._add(waiting[-1], last))
            waiting[-1] = sums[-1]
        return self._add(sums[-1], self.choices.pick(sums[:-1]))

    def _add(self, a: Sparse, b: Sparse) -> Sparse:
        name = self._name("add", f"{a.tensor}+{b.tensor}")
        ranges = (self._amax(), self._amax()) if self.kind.precisions else None
        precisions = self._precisions(0)
        self.pieces.append(builder.add(name, a.tensor, b.tensor, name, ranges=ranges, **precisions))
        return self._value(Sparse(name, a.channels, a.shape, a.sites))

    def activation(self, x: Sparse) -> Sparse:
        """The node of an activation."""
        kind, attributes = self._activation()
        op_type = {name: op_type for op_type, name in ACTIVATION_NODES.items()}[kind]
        name = self._name(op_type.lower())
        self.pieces.append(builder.node(op_type, name, [x.tensor], name, **attributes))
        return self._value(Sparse(name, x.channels, x.shape, x.sites))

    def concat(self, x: Sparse) -> Sparse:
        """The value beside others of its sites: earlier ones, itself perhaps, or a further convolution's."""
        parts = [x]
        for _ in range(self.choices.integer(1, 2)):
            earlier = [v for v in self.made[x.sites] if v.channels + sum(p.channels for p in parts) <= 160]
            if earlier and self.choices.pick((False, True)):
                parts.append(self.choices.pick(earlier))
            else:
                parts.append(self.convolution(x, "subm", self.choices.pick((False, True))))
        if self.choices.pick((False, True)):
            parts.reverse()
        name = self._name("concat", "+".join(str(part.channels) for part in parts))
        self.pieces.append(builder.node("Concat", name, [part.tensor for part in parts], name, axis=1))
        return self._value(Sparse(name, sum(part.channels for part in parts), x.shape, x.sites))

    def union(self, x: Sparse) -> Sparse:
        """The value and up to two others of its grid: earlier ones, itself perhaps, some of other sites."""
        parts = [x]
        for _ in range(self.choices.integer(0, 2)):
            made = (value for values in self.made.values() for value in values)
            earlier = [v for v in made if (v.channels, v.shape) == (x.channels, x.shape)]
            if self.choices.pick((False, True)):
                parts.append(self.choices.pick(earlier))
            else:
                kind, active = self.choices.pick(("strided", "transposed")), self.choices.pick((False, True))
                parts.append(self.convolution(x, kind, active, out=x.channels, same_grid=True))
        if self.choices.pick((False, True)):
            parts.reverse()
        name = self._name("union", "+".join(part.tensor for part in parts))
        rulebook = self.choices.pick((name, "", "_".join(("union", *(part.sites for part in parts)))))
        shape = self.choices.pick((None, x.shape))
        inputs = [part.tensor for part in parts]
        self.pieces.append(builder.union(name, inputs, name, rulebook=rulebook, shape=shape))
        return self._value(Sparse(name, x.channels, x.shape, rulebook or name))

    def affine(self, x: Sparse) -> Sparse:
        """A scale and a shift for each channel, some of them zero."""
        name = self._name("affine")
        scale = self.rng.uniform(-1.5, 2.0, x.channels) * (self.rng.random(x.channels) > 0.05)
        shift = self.rng.normal(size=x.channels)
        numbers = {"scale": scale.astype(np.float32).tolist(), "shift": shift.astype(np.float32).tolist()}
        self.pieces.append(builder.node("Affine", name, [x.tensor], name, **numbers))
        return self._value(Sparse(name, x.channels, x.shape, x.sites))

    def pool(self, x: Sparse) -> Sparse:
        """The largest, mean or sum of neighbours, of a strided or submanifold kernel."""
        kernel = self.kind.flat(triple(self.choices, 1, self.kind.max_kernel))
        stride = self.kind.flat(triple(self.choices, 1, self.kind.max_stride))
        dilation = self.kind.flat(self.choices.pick(self.kind.dilations))
        padding = tuple(k // 2 * d for k, d in zip(kernel, dilation, strict=True))
        shape = output_shape(x.shape, kernel, stride, padding, dilation)
        subm = min(shape) < 1 or self.choices.pick((False, False, True))
        if subm:
            stride, shape = (1, 1, 1), x.shape
        kind = self.choices.pick(("max", "mean", "sum"))
        name = self._name("pool", f"{kind} {kernel}/{stride}/{dilation}{' subm' if subm else ''}")
        numbers = {"stride": stride, "padding": padding, "dilation": dilation}
        self.pieces.append(
            builder.pool(
                name,
                x.tensor,
                name,
                kind,
                kernel,
                input_shape=x.shape,
                output_shape=shape,
                subm=subm,
                **numbers,
            )
        )
        y = Sparse(name, x.channels, shape, x.sites if subm else name)
        if not subm:
            self.partners.append((name, x, y, {"kernel": kernel, **numbers}))
        return self._value(y)

    def norm(self, x: Sparse) -> Sparse:
        """A LayerNorm or GroupNorm."""
        groups = self.choices.pick([n for n in range(1, x.channels + 1) if x.channels % n == 0])
        name = self._name("norm", f"{groups} groups")
        drawn = {which: self.rng.normal(size=x.channels) for which in ("scale", "shift")}
        numbers = {which: values.astype(np.float32).tolist() for which, values in drawn.items()}
        made = builder.node(
            "GroupNormalization", name, [x.tensor], name, num_groups=groups, epsilon=1e-3, **numbers
        )
        self.pieces.append(made)
        return self._value(Sparse(name, x.channels, x.shape, x.sites))

    def gate(self, x: Sparse) -> Sparse:
        """The value times what a convolution and an activation make of it, in either order."""
        other = self.convolution(x, "subm", True, out=x.channels)
        pair = [x.tensor, other.tensor]
        if self.choices.pick((False, True)):
            pair.reverse()
        name = self._name("gate")
        precisions = self._precisions(0)
        ranges = (self._amax(), self._amax()) if self.kind.precisions else None
        self.pieces.append(builder.add(name, *pair, name, op_type="Mul", ranges=ranges, **precisions))
        return self._value(Sparse(name, x.channels, x.shape, x.sites))

    def global_pool(self, x: Sparse, batch_size: int) -> str:
        """The largest, mean or sum of all sites of each batch entry, and its Transpose or nothing."""
        kind = self.choices.pick(("max", "mean", "sum"))
        name, shape = self._name("global_pool", kind), [batch_size, x.channels]
        made = builder.node("SparseGlobalPool", name, [x.tensor], name, kind=kind, output_shape=shape)
        self.pieces.append(made)
        if self.choices.pick((True, False)):
            return name
        turned = self._name("transpose")
        self.pieces.append(builder.node("Transpose", turned, [name], turned, dims=[1, 0]))
        return turned

    def dense(self, x: Sparse, batch_size: int) -> str:
        """ScatterDense, then Reshape to a BEV map (channels times z) or Transpose, or neither; or one row."""
        if self.choices.pick((False, False, False, True)):
            return self.global_pool(x, batch_size)
        name, shape = self._name("dense"), [batch_size, x.channels, *x.shape]
        self.pieces.append(
            builder.node(
                "ScatterDense", name, [x.tensor], name,
                format="zyx", input_spatial_shape=list(x.shape), output_shape=shape,
            )
        )  # fmt: skip
        if self.choices.pick((False, True)):
            permuted = self._name("transpose")
            self.pieces.append(builder.node("Transpose", permuted, [name], permuted, dims=[0, 1, 2, 4, 3]))
            name, shape = permuted, [*shape[:3], shape[4], shape[3]]
        if self.choices.pick((False, True)):
            flat = self._name("reshape")
            dims = [shape[0], shape[1] * shape[2], *shape[3:]]
            self.pieces.append(builder.node("Reshape", flat, [name], flat, dims=dims))
            name = flat
        return name
