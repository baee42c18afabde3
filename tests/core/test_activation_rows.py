# SPDX-License-Identifier: Apache-2.0
"""Activations on rows whose value is float16: rounded before the activation, then behind it.

Where rounding and activation do not commute (LeakyReLU, SiLU), the engine has to round twice, in the epilogue
that stores such a form and in a step of its own alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scn_fx import _core
from tests.core.activations import EVERY, Named
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle import numerics, strategies
from tests.oracle.builder import Piece, build_onnx, convolution, node
from tests.oracle.compare import assert_same_bits
from tests.oracle.dialect import ACTIVATION_NODES
from tests.oracle.exact import round_to_float16
from tests.oracle.frames import random_sites
from tests.oracle.geometry import align
from tests.oracle.network import run_network

GRID = (5, 9, 11)
RNG = np.random.default_rng(4)
SITES = random_sites(RNG, 150, GRID)
FEATURES = strategies.features_for(RNG, len(SITES), 6)
NODES = {name: op_type for op_type, name in ACTIVATION_NODES.items()}
SOME = [a for a in EVERY if a[0] != "None"]
CLAMPS = ("ReLU", "ReLU6")
"""Rounding before them changes nothing, and two in a row are one."""
every_isa = pytest.mark.parametrize("isa", SUPPORTED)


def _layer(name: str, source: str, channels: int, **options: Any) -> Piece:
    """int8 with a float16 result: one right answer."""
    weight, bias = strategies.weights_for(np.random.default_rng(len(name)), 20, (3, 3, 3), channels)
    return convolution(
        name, source, name, weight, bias, input_shape=GRID, output_shape=GRID, padding=(1, 1, 1), subm=True,
        precision="int8", output_precision="fp16", input_range=2.5, weight_ranges=[0.6] * 20,
        rulebook="one", **options,
    )  # fmt: skip


def _activation(name: str, source: str, activation: Named) -> Piece:
    kind, parameter = activation
    more = {"alpha": parameter} if kind == "LeakyReLU" else {}
    return node(NODES[kind], name, [source], name, **more)


def _check(onnx: bytes, isa: str) -> None:
    expected = run_network(onnx, FEATURES, SITES)
    for options in ({}, {"threads": 2}):
        with instruction_set(isa):
            outputs = _core.Engine(onnx, **options).run(FEATURES, SITES)
        for (values, sites), want in zip(outputs, expected.outputs, strict=True):
            assert want.sites is not None and want.bound is None
            assert_same_bits(values[align(want.sites, sites)], want.values, want.name)


def test_rounding_before_the_activation_shows_in_these_layers() -> None:
    """Else the tests below would pass without it."""
    onnx = build_onnx(_layer("conv", "features", 6))
    (half,) = run_network(onnx, FEATURES, SITES).outputs
    (full,) = run_network(onnx.replace(b"fp16", b"int8"), FEATURES, SITES).outputs
    assert (half.values.dtype, full.values.dtype) == (np.float16, np.float32)
    for kind, parameter in SOME:
        once = round_to_float16(numerics.activate(full.values, kind, parameter)).values
        twice = numerics.activate(half.values, kind, parameter)
        exact = kind in CLAMPS or abs(parameter) in (0.5, 2.0)
        assert (once != twice).any() != exact, (kind, parameter)


@every_isa
@pytest.mark.parametrize("activation", SOME, ids=str)
def test_a_stored_form_of_a_convolution(isa: str, activation: Named) -> None:
    """The plain value and the active one, each read by a layer and given as an output."""
    pieces = [
        _layer("conv", "features", 6),
        _activation("act", "conv", activation),
        _layer("left", "conv", 20),
    ]
    pieces.append(_layer("right", "act", 20))
    onnx = build_onnx(*pieces, outputs=["conv", "act", "left", "right"])
    kinds = [step["kind"] for step in _core.Engine(onnx).describe()["steps"]]
    assert kinds.count("convolution") == 3 and "activation" not in kinds
    _check(onnx, isa)


@every_isa
@pytest.mark.parametrize("first", SOME, ids=str)
@pytest.mark.parametrize("second", SOME, ids=str)
def test_a_step_of_its_own(isa: str, first: Named, second: Named) -> None:
    """One activation after another is a step on float16 rows, unless both are one."""
    pieces = [
        _layer("conv", "features", 6),
        _activation("one", "conv", first),
        _activation("two", "one", second),
        _layer("last", "two", 20),
    ]
    onnx = build_onnx(*pieces, outputs=["one", "two", "last"])
    kinds = [step["kind"] for step in _core.Engine(onnx).describe()["steps"]]
    assert kinds.count("activation") == (0 if first == second and first[0] in CLAMPS else 1)
    _check(onnx, isa)


@every_isa
@pytest.mark.parametrize("activation", SOME, ids=str)
def test_the_features_themselves(isa: str, activation: Named) -> None:
    pieces = [
        _layer("conv", "features", 6),  # a network starts with one
        _activation("act", "features", activation),
        _layer("last", "act", 6),
    ]
    _check(build_onnx(*pieces, outputs=["conv", "act", "last"]), isa)
