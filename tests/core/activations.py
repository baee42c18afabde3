# SPDX-License-Identifier: Apache-2.0
"""Activations as the compiled functions take them: a name and a parameter."""

from __future__ import annotations

__all__ = ["NONE", "RELU", "relu_if"]

NONE, RELU = ("None", 0.0), ("ReLU", 0.0)


def relu_if(relu: bool) -> tuple[str, float]:
    return RELU if relu else NONE
