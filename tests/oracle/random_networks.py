# SPDX-License-Identifier: Apache-2.0
"""Random small networks as ONNX files of the engine's own dialect, with a frame for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tests.oracle import builder, strategies
from tests.oracle.dialect import ACTIVATION_NODES
from tests.oracle.frames import random_sites
from tests.oracle.geometry import on_plane, output_shape
from tests.oracle.numerics import FIXED_ORDER_CHANNELS

__all__ = ["RandomNetwork", "networks"]

Triple = tuple[int, int, int]
BLOCKS = ("subm", "residual", "residual", "strided", "transposed", "inverse", "activation")
ACTIVATIONS = ("ReLU",) * 6 + tuple(ACTIVATION_NODES.values())
SLOPES = (0.01, 0.25, 1.5, -0.5)


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
    """The network so far.

    `exact`: no node whose summation order is free. `quantised`: nodes name precisions and ranges. `ndim`:
    dimensions; the leading axes have one cell where they are fewer than three.
    """

    draw: st.DrawFn
    rng: np.random.Generator
    exact: bool
    quantised: bool
    ndim: int = 3
    pieces: list[builder.Piece] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    partners: list[tuple[str, _Sparse, _Sparse, dict[str, Triple]]] = field(default_factory=list)

    def _name(self, word: str) -> str:
        self.words.append(word)
        return f"{word}{len(self.pieces)}"

    def _flat(self, numbers: Triple) -> Triple:
        """A triple with 1 along the axes that the network lacks."""
        lead = 3 - self.ndim
        return (1,) * lead + numbers[lead:]  # type: ignore[return-value]

    def _amax(self) -> float:
        """Activations are about 1: small ranges clip, large ones are coarse; both must agree."""
        return float(np.float32(self.rng.uniform(0.5, 6.0)))

    def _precisions(self, channels: int) -> dict[str, Any]:
        """Precision, output precision and the input range of a convolution or Add."""
        if not self.quantised:
            return {}
        allowed = ["int8", "int8", "fp16"]
        if self.exact and channels > FIXED_ORDER_CHANNELS:
            allowed = ["int8"]
        precision = self.draw(st.sampled_from(allowed))
        return {"precision": precision, "output_precision": self.draw(st.sampled_from(["int8", "fp16"]))}

    def _activation(self) -> tuple[str, dict[str, float]]:
        """An activation and the attributes of its node."""
        name = self.draw(st.sampled_from(ACTIVATIONS))
        return name, {"alpha": self.draw(st.sampled_from(SLOPES))} if name == "LeakyReLU" else {}

    def convolution(self, x: _Sparse, kind: str, active: bool, out: int | None = None) -> _Sparse:
        """Appends a convolution of this kind with a drawn geometry."""
        kernel = self._flat(self.draw(strategies.triples(1, 3)))
        dilation: Triple = self._flat(self.draw(st.sampled_from([(1, 1, 1), (1, 2, 1)])))
        stride: Triple = (1, 1, 1) if kind == "subm" else self._flat(self.draw(strategies.triples(1, 2)))
        padding = tuple(k // 2 * d for k, d in zip(kernel, dilation, strict=True))
        numbers = {"stride": stride, "padding": padding, "dilation": dilation}
        shape = x.shape
        if kind != "subm":
            shape = output_shape(x.shape, kernel, stride, padding, dilation, transposed=kind == "transposed")
        if min(shape) < 1 or max(shape) > 40:
            return x
        name = self._name(kind)
        # submanifold layers of equal geometry on one site set share a rulebook, as an indice_key does
        rulebook = f"{x.sites}_{kernel}_{dilation}" if kind == "subm" and self.draw(st.booleans()) else name
        y = _Sparse(name, out or self.draw(st.integers(1, 24)), shape, x.sites if kind == "subm" else name)
        self._append(name, x, y, kernel, numbers, kind, active, rulebook)
        if kind == "strided":
            self.partners.append((rulebook, x, y, {"kernel": kernel, **numbers}))
        return y

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
        y = _Sparse(name, self.draw(st.integers(1, 24)), before.shape, before.sites)
        self._append(name, x, y, kernel, numbers, "inverse", active, rulebook)
        return y

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
        name = self._name("add")
        ranges = (self._amax(), self._amax()) if self.quantised else None
        precisions = self._precisions(0)
        self.pieces.append(builder.add(name, inner.tensor, x.tensor, name, ranges=ranges, **precisions))
        return self.activation(_Sparse(name, x.channels, x.shape, x.sites))

    def activation(self, x: _Sparse) -> _Sparse:
        """The node of an activation."""
        kind, attributes = self._activation()
        op_type = {name: op_type for op_type, name in ACTIVATION_NODES.items()}[kind]
        name = self._name(op_type.lower())
        self.pieces.append(builder.node(op_type, name, [x.tensor], name, **attributes))
        return _Sparse(name, x.channels, x.shape, x.sites)

    def dense(self, x: _Sparse, batch_size: int) -> str:
        """ScatterDense, then Reshape to a BEV map (channels times z) or Transpose, or neither."""
        name, shape = self._name("dense"), [batch_size, x.channels, *x.shape]
        self.pieces.append(
            builder.node(
                "ScatterDense", name, [x.tensor], name,
                format="zyx", input_spatial_shape=list(x.shape), output_shape=shape,
            )
        )  # fmt: skip
        if self.draw(st.booleans()):
            permuted = self._name("transpose")
            self.pieces.append(builder.node("Transpose", permuted, [name], permuted, dims=[0, 1, 2, 4, 3]))
            name, shape = permuted, [*shape[:3], shape[4], shape[3]]
        if self.draw(st.booleans()):
            flat = self._name("reshape")
            dims = [shape[0], shape[1] * shape[2], *shape[3:]]
            self.pieces.append(builder.node("Reshape", flat, [name], flat, dims=dims))
            name = flat
        return name


@st.composite
def networks(
    draw: st.DrawFn, *, exact: bool, max_sites: int = 150, max_blocks: int = 4, ndim: int = 3
) -> RandomNetwork:
    """Networks of one to ten convolutions: int8 and fp16 mixed, both output precisions, or none named.

    With `exact`, every node has one right answer bit for bit. With `ndim` 1 or 2 the file says so, and sites
    are [N, ndim + 1].
    """
    rng = np.random.default_rng(draw(strategies.seeds))
    quantised = exact or draw(st.booleans())
    drawing = _Drawing(draw, rng, exact, quantised, ndim)
    batch_size = draw(st.integers(1, 2))
    shape = (draw(st.integers(3, 10)), draw(st.integers(4, 14)), draw(st.integers(4, 14)))
    channels = draw(st.integers(1, 8 if exact else 20))
    shape = drawing._flat(shape)
    x = drawing.convolution(_Sparse("features", channels, shape, "input"), "subm", True)
    for _ in range(draw(st.integers(0, max_blocks))):
        block = draw(st.sampled_from(BLOCKS))
        if block == "residual":
            x = drawing.residual(x)
        elif block == "activation":
            x = drawing.activation(x)
        elif block == "inverse":
            x = drawing.inverse(x, draw(st.booleans()))
        else:
            x = drawing.convolution(x, block, draw(st.booleans()))
    outputs = draw(st.sampled_from([("dense",), ("dense",), ("sparse",), ("dense", "sparse")]))
    last = x.tensor
    names = [drawing.dense(x, batch_size) if kind == "dense" else last for kind in outputs]
    said = {} if ndim == 3 else {"scn_fx.ndim": str(ndim)}
    onnx = builder.build_onnx(*drawing.pieces, outputs=names, channels=channels, metadata=said)
    count = draw(st.one_of(st.integers(0, 10), st.integers(0, max_sites)))
    sites = random_sites(rng, count, shape, batch_size, ordered=draw(st.booleans()))
    features = strategies.features_for(rng, len(sites), channels)
    sites = on_plane(sites, ndim)
    return RandomNetwork(onnx, features, sites, batch_size, " ".join(drawing.words))
