# SPDX-License-Identifier: Apache-2.0
"""Activations as the compiled functions take them: a name and a parameter."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.oracle.dialect import ACTIVATION_NODES

__all__ = ["EVERY", "NONE", "RELU", "Named", "activations", "relu_if"]

Named = tuple[str, float]

NONE, RELU = ("None", 0.0), ("ReLU", 0.0)
EVERY: tuple[Named, ...] = (
    NONE,
    RELU,
    ("LeakyReLU", 0.1),
    ("LeakyReLU", 1.5),
    ("LeakyReLU", -0.5),
    *((name, 0.0) for name in ACTIVATION_NODES.values() if name not in ("ReLU", "LeakyReLU")),
)

activations = st.sampled_from(EVERY)


def relu_if(relu: bool) -> Named:
    return RELU if relu else NONE
