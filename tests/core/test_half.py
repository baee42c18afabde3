# SPDX-License-Identifier: Apache-2.0
"""float16 to and from float32 in the engine: all float16 values against numpy, float32 at every tie."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import numpy.typing as npt
import pytest

from scn_fx import Engine
from tests import cpp_programs
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle.builder import build_onnx, convolution
from tests.oracle.compare import assert_same_bits

HALVES = np.arange(65536, dtype=np.uint16).view(np.float16)
FINITE = HALVES[np.isfinite(HALVES)]
GRID = (40, 40, 40)


def _through_engine(features: npt.NDArray[np.generic], channels: int) -> npt.NDArray[np.float16]:
    """Values as a layer that copies them gives them back: read, rounded, stored and written as float16."""
    weight = np.eye(channels, dtype=np.float16).reshape(channels, 1, 1, 1, channels)
    onnx = build_onnx(convolution("copy", "features", "y", weight, input_shape=GRID, output_shape=GRID))
    padded = np.zeros(-(-len(features) // channels) * channels, features.dtype)
    padded[: len(features)] = features
    rows = padded.reshape(-1, channels)
    sites = np.stack(np.unravel_index(np.arange(len(rows)), (1, *GRID)), axis=1).astype(np.int32)
    values, _ = Engine(onnx)(rows, sites)
    return values.ravel()[: len(features)]


def _ties() -> npt.NDArray[np.float32]:
    """All midpoints of neighbouring float16 values, and the float32 values beside them."""
    order = np.sort(FINITE[FINITE >= 0].astype(np.float64))
    middle = ((order[:-1] + order[1:]) / 2).astype(np.float32)
    assert (middle.astype(np.float64) * 2 == order[:-1] + order[1:]).all()  # exact in float32
    around = [middle, np.nextafter(middle, np.float32(-np.inf)), np.nextafter(middle, np.float32(np.inf))]
    positive = np.concatenate(around)
    return np.concatenate([positive, -positive])


@pytest.mark.parametrize("isa", SUPPORTED)
@pytest.mark.parametrize("channels", [8, 16])
def test_all_float16_values_come_back(isa: str, channels: int) -> None:
    # rows of more than 8 channels are stored as float16, others as float32
    with instruction_set(isa):
        got = _through_engine(FINITE, channels)
    assert_same_bits(got + np.float16(0), FINITE + np.float16(0))  # a sum of products has no -0


@pytest.mark.parametrize("isa", SUPPORTED)
@pytest.mark.parametrize("channels", [8, 16])
def test_float32_rounds_to_the_nearest_even(isa: str, channels: int) -> None:
    ties = _ties()
    with instruction_set(isa):
        got = np.concatenate([_through_engine(part, channels) for part in np.array_split(ties, 2)])
    assert_same_bits(got + np.float16(0), ties.astype(np.float16) + np.float16(0))


def test_float32_patterns_of_every_kind() -> None:
    """A prime stride over all 2^32; SCN_FX_HALF_STRIDE=1 tries each of them (minutes)."""
    stride = os.environ.get("SCN_FX_HALF_STRIDE", "1021")
    done = subprocess.run([cpp_programs.program("half_bits"), stride], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith(" 0 wrong\n"), done.stdout
    assert f"{len(SUPPORTED)} instruction sets" in done.stdout
    assert done.stdout.startswith(f"{-(-(2**32) // int(stride))} patterns")
