# SPDX-License-Identifier: Apache-2.0
"""Runs a test under each instruction set that this processor and build offer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from scn_fx import _core

__all__ = ["SUPPORTED", "instruction_set"]

SUPPORTED: list[str] = list(_core.cpu_features()["supported"])


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """Within, the engine uses these kernels (the variable SCN_FX_ISA is read at each call)."""
    with patch.dict(os.environ, SCN_FX_ISA=name):
        assert _core.cpu_features()["isa"] == name
        yield
