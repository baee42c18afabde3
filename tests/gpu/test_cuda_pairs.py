# SPDX-License-Identifier: Apache-2.0
"""Convolutions by pairs of blocks: as many rows as take several rounds, and the limits between rounds.

The other tests of kernels compare with the oracle, on few rows; here another kernel of the GPU is right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from scn_fx import _core
from tests.core.activations import RELU
from tests.gpu.test_cuda_convolve import DEVICE
from tests.oracle.compare import assert_same_bits

pytestmark = pytest.mark.gpu

KERNEL, OFFSETS = (3, 3, 3), 27
SHORT = {"int8": "int8", "fp16": "half"}
TILE, WARPGROUPS = 64, 3


def _rows_of_a_round() -> int:
    """Rows that all pairs of blocks of this GPU take at a time, at most."""
    return int(_core.cuda_info()["devices"][0]["multiprocessors"]) // 2 * WARPGROUPS * TILE


def _problem(precision: str, rows: int, inputs: int, outputs: int, far: bool) -> _core.ConvolutionProblem:
    """Neighbours nearby, half of them missing; or anywhere, so that no distance fits into 16 bits."""
    rng = np.random.default_rng(rows + inputs + outputs)
    near = np.arange(rows)[:, None] + rng.integers(-40, 41, (rows, OFFSETS))
    anywhere = rng.integers(0, max(rows, 1), (rows, OFFSETS))
    kernel_map: npt.NDArray[np.int32] = (anywhere if far else near).astype(np.int32)
    kernel_map[(kernel_map < 0) | (kernel_map >= rows) | (rng.random(kernel_map.shape) < 0.5)] = -1
    weight = rng.normal(0, 0.1, (outputs, *KERNEL, inputs)).astype(np.float16)
    int8 = precision == "int8"
    return _core.ConvolutionProblem(
        features=rng.normal(0, 1, (rows, inputs)).astype(np.float16),
        weight=weight,
        bias=rng.normal(0, 1, outputs).astype(np.float16),
        kernel_map=kernel_map,
        precision=precision,
        output_precision=precision,
        activation=RELU,
        input_amax=2.5 if int8 else 0.0,
        weight_amax=np.abs(weight.astype(np.float32)).max(axis=(1, 2, 3, 4)) if int8 else None,
        output_amax=8.0 if int8 else 0.0,
        name="conv",
    )


def _check(precision: str, rows: int, inputs: int = 128, outputs: int = 128, far: bool = False) -> None:
    """The engine's choice, which is pairs on Hopper, against the tensor kernel."""
    given = _problem(precision, rows, inputs, outputs, far)
    name = _core.convolution_kernels(given, DEVICE)[0]
    if _core.cuda_info()["devices"][0]["architecture"] == 90:
        assert name == f"hopper-pair-{SHORT[precision]}"
    got, ran, _ = _core.convolve(given, DEVICE, name)
    assert ran.split()[0] == name
    again, _, _ = _core.convolve(given, DEVICE, name, repeat=3)
    assert_same_bits(again, got, f"{ran}, again")
    wanted, _, _ = _core.convolve(given, DEVICE, f"tensor-{SHORT[precision]}")
    if precision == "int8":
        assert_same_bits(got, wanted, ran)
    else:
        np.testing.assert_allclose(got.astype(np.float32), wanted.astype(np.float32), rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("precision", SHORT)
@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("beyond", [-TILE - 1, -1, 0, 1])
def test_rounds_of_tiles(precision: str, rounds: int, beyond: int) -> None:
    """The last round is full, nearly so, or has a single row."""
    _check(precision, rounds * _rows_of_a_round() + beyond)


@pytest.mark.parametrize("precision", SHORT)
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200, 5000])
def test_most_blocks_have_nothing_to_do(precision: str, rows: int) -> None:
    _check(precision, rows)


@pytest.mark.parametrize("precision", SHORT)
@pytest.mark.parametrize("channels", [(100, 65), (128, 256), (126, 200)])
def test_channels_that_do_not_fill_their_rows(precision: str, channels: tuple[int, int]) -> None:
    _check(precision, _rows_of_a_round() + 100, *channels)


def test_int8_rows_of_256_bytes() -> None:
    for inputs in (129, 256):
        _check("int8", _rows_of_a_round() + 100, inputs, 128)


@pytest.mark.parametrize("precision", SHORT)
def test_far_neighbours(precision: str) -> None:
    _check(precision, max(_rows_of_a_round() + 100, 150_000), far=True)
