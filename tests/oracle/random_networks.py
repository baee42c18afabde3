# SPDX-License-Identifier: Apache-2.0
"""Random networks as ONNX files of the engine's own dialect, with a frame for each.

One generator, of two kinds of networks: `networks` are small and have every operator and every mixture of
precisions; `wide_network` has kernels up to 5, strides up to 3, and channels of all widths at which kernels
change, in one precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tests.oracle import builder, strategies
from tests.oracle.choices import Choices, Drawn, Seeded, triple
from tests.oracle.dialect import ACTIVATION_NODES
from tests.oracle.frames import random_sites
from tests.oracle.geometry import on_plane, output_shape
from tests.oracle.numerics import FIXED_ORDER_CHANNELS
from tests.oracle.problems import WIDTHS

__all__ = ["RandomNetwork", "networks", "wide_network"]

Triple = tuple[int, int, int]
SLOPES = (0.01, 0.25, 1.5, -0.5)


@dataclass(frozen=True)
class _Kind:
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
        *("concat", "concat", "affine", "gate", "pool"),
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
class RandomNetwork:
    """A serialised network, a frame, and a summary for failing tests."""

    onnx: bytes
    features: npt.NDArray[np.float16]
    sites: npt.NDArray[np.int32]
    batch_size: int
    summary: str

    def __repr__(self) -> str:
        return f"RandomNetwork({len(self.sites)} sites, batch {self.batch_size}: {self.summary})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # hypothesis would print every field of a dataclass


@dataclass(frozen=True)
class _Sparse:
    """A value while the network is drawn: its tensor, channels, grid, and a name of its site set."""

    tensor: str
    channels: int
    shape: Triple
    sites: str


@dataclass
class _Drawing:
    """The network so far."""

    kind: _Kind
    choices: Choices
    rng: np.random.Generator
    pieces: list[builder.Piece] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    partners: list[tuple[str, _Sparse, _Sparse, dict[str, Triple]]] = field(default_factory=list)
    made: dict[str, list[_Sparse]] = field(default_factory=dict)
    """Values so far, by their site sets."""

    def _value(self, value: _Sparse) -> _Sparse:
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

    def convolution(self, x: _Sparse, kind: str, active: bool, out: int | None = None) -> _Sparse:
        """Appends a convolution of this kind with a drawn geometry.

        One that would leave the grid without a cell, or with too many, becomes submanifold.
        """
        kernel = self.kind.flat(triple(self.choices, 1, self.kind.max_kernel))
        dilation = self.kind.flat(self.choices.pick(self.kind.dilations))
        stride = triple(self.choices, 1, 1 if kind == "subm" else self.kind.max_stride)
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
        y = _Sparse(name, width, shape, x.sites if kind == "subm" else name)
        self._append(name, x, y, kernel, numbers, kind, active, rulebook)
        if kind == "strided":
            self.partners.append((rulebook, x, y, {"kernel": kernel, **numbers}))
        return self._value(y)

    def inverse(self, x: _Sparse, active: bool) -> _Sparse:
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
        y = _Sparse(name, self.choices.pick(self.kind.widths), before.shape, before.sites)
        self._append(name, x, y, kernel, numbers, "inverse", active, rulebook)
        return self._value(y)

    def _append(
        self,
        name: str,
        x: _Sparse,
        y: _Sparse,
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

    def residual(self, x: _Sparse) -> _Sparse:
        """Convolution, activation, convolution, Add with x, activation: the block of CenterPoint."""
        inner = self.convolution(self.convolution(x, "subm", True), "subm", False, out=x.channels)
        return self.activation(self._add(inner, x))

    def sums(self, x: _Sparse) -> _Sparse:
        """Sums of sums, in any nesting, of x and convolutions of it; some sums are read twice.

        Convolutions come before the first Add or between them: which one an Add moves into depends on that.
        """
        waiting = [x, self.convolution(x, "subm", self.choices.pick((False, True)), out=x.channels)]
        sums: list[_Sparse] = []
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

    def _add(self, a: _Sparse, b: _Sparse) -> _Sparse:
        name = self._name("add", f"{a.tensor}+{b.tensor}")
        ranges = (self._amax(), self._amax()) if self.kind.precisions else None
        precisions = self._precisions(0)
        self.pieces.append(builder.add(name, a.tensor, b.tensor, name, ranges=ranges, **precisions))
        return self._value(_Sparse(name, a.channels, a.shape, a.sites))

    def activation(self, x: _Sparse) -> _Sparse:
        """The node of an activation."""
        kind, attributes = self._activation()
        op_type = {name: op_type for op_type, name in ACTIVATION_NODES.items()}[kind]
        name = self._name(op_type.lower())
        self.pieces.append(builder.node(op_type, name, [x.tensor], name, **attributes))
        return self._value(_Sparse(name, x.channels, x.shape, x.sites))

    def concat(self, x: _Sparse) -> _Sparse:
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
        return self._value(_Sparse(name, sum(part.channels for part in parts), x.shape, x.sites))

    def affine(self, x: _Sparse) -> _Sparse:
        """A scale and a shift for each channel, some of them zero."""
        name = self._name("affine")
        scale = self.rng.uniform(-1.5, 2.0, x.channels) * (self.rng.random(x.channels) > 0.05)
        shift = self.rng.normal(size=x.channels)
        numbers = {"scale": scale.astype(np.float32).tolist(), "shift": shift.astype(np.float32).tolist()}
        self.pieces.append(builder.node("Affine", name, [x.tensor], name, **numbers))
        return self._value(_Sparse(name, x.channels, x.shape, x.sites))

    def pool(self, x: _Sparse) -> _Sparse:
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
        y = _Sparse(name, x.channels, shape, x.sites if subm else name)
        if not subm:
            self.partners.append((name, x, y, {"kernel": kernel, **numbers}))
        return self._value(y)

    def gate(self, x: _Sparse) -> _Sparse:
        """The value times what a convolution and an activation make of it, in either order."""
        other = self.convolution(x, "subm", True, out=x.channels)
        pair = [x.tensor, other.tensor]
        if self.choices.pick((False, True)):
            pair.reverse()
        name = self._name("gate")
        precisions = self._precisions(0)
        ranges = (self._amax(), self._amax()) if self.kind.precisions else None
        self.pieces.append(builder.add(name, *pair, name, op_type="Mul", ranges=ranges, **precisions))
        return self._value(_Sparse(name, x.channels, x.shape, x.sites))

    def dense(self, x: _Sparse, batch_size: int) -> str:
        """ScatterDense, then Reshape to a BEV map (channels times z) or Transpose, or neither."""
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


def _sites(kind: _Kind, choices: Choices, rng: np.random.Generator, shape: Triple, batch: int) -> Any:
    count = choices.integer(0, kind.max_sites)
    if kind.counts and choices.pick((False, True, True)):
        count = choices.pick(kind.counts)
    return random_sites(rng, count, shape, batch, ordered=choices.pick((False, True)))


def _make(kind: _Kind, choices: Choices) -> RandomNetwork:
    rng = np.random.default_rng(choices.integer(0, strategies.MOST_SEED))
    drawing = _Drawing(kind, choices, rng)
    batch_size = choices.integer(1, kind.max_batch)
    low, high = kind.shape
    z, y, x = (choices.integer(a, b) for a, b in zip(low, high, strict=True))
    shape, channels = kind.flat((z, y, x)), choices.pick(kind.inputs)
    first = choices.pick([b for b in kind.blocks if b in ("subm", "strided", "transposed")])
    value = drawing.convolution(_Sparse("features", channels, shape, "input"), first, True)
    for _ in range(choices.integer(0, kind.max_blocks)):
        block = choices.pick(kind.blocks)
        if block in ("residual", "activation", "sums", "concat", "affine", "gate", "pool"):
            value = getattr(drawing, block)(value)
        elif block == "inverse":
            value = drawing.inverse(value, choices.pick((False, True)))
        else:
            value = drawing.convolution(value, block, choices.pick((False, True)))
    outputs = choices.pick((("dense",), ("dense",), ("sparse",), ("dense", "sparse")))
    last = value.tensor
    names = [drawing.dense(value, batch_size) if ending == "dense" else last for ending in outputs]
    said = {} if kind.ndim == 3 else {"scn_fx.ndim": str(kind.ndim)}
    onnx = builder.build_onnx(*drawing.pieces, outputs=names, channels=channels, metadata=said)
    sites = _sites(kind, choices, rng, shape, batch_size)
    features = strategies.features_for(rng, len(sites), channels)
    return RandomNetwork(onnx, features, on_plane(sites, kind.ndim), batch_size, "; ".join(drawing.words))


@st.composite
def networks(
    draw: st.DrawFn, *, exact: bool, max_sites: int = 150, max_blocks: int = 4, ndim: int = 3
) -> RandomNetwork:
    """Networks of one to ten convolutions: int8 and fp16 mixed, both output precisions, or none named.

    With `exact`, every node has one right answer bit for bit. With `ndim` 1 or 2 the file says so, and sites
    are [N, ndim + 1].
    """
    quantised = exact or draw(st.booleans())
    kind = _Kind(
        inputs=range(1, 9 if exact else 21),
        widths=range(1, 25),
        precisions=("int8", "int8", "fp16") if quantised else (),
        exact=exact,
        max_blocks=max_blocks,
        max_sites=max_sites,
        counts=range(11),
        ndim=ndim,
    )
    return _make(kind, Drawn(draw))


def wide_network(seed: int, precision: str) -> RandomNetwork:
    """One to four blocks of any width in one precision ("int8" or "fp16"); batch 1 to 4."""
    kind = _Kind(
        inputs=WIDTHS,
        widths=WIDTHS,
        precisions=(precision,),
        exact=False,
        blocks=("subm", "subm", "strided", "strided", "transposed", "residual", "residual", "inverse",
                "activation", "sums", "concat", "affine", "gate", "pool"),
        max_blocks=2,
        max_kernel=5,
        max_stride=3,
        dilations=[(z, y, x) for z in (1, 2) for y in (1, 2) for x in (1, 2)],
        shape=((2, 3, 3), (8, 19, 39)),
        max_cells=30_000,
        max_batch=4,
        # the last one fills small grids
        counts=(0, 1, 2, 63, 64, 65, 900),
        max_sites=700,
    )  # fmt: skip
    network = _make(kind, Seeded(seed))
    return replace(network, summary=f"seed {seed}: {network.summary}")
