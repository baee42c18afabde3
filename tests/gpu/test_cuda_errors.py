# SPDX-License-Identifier: Apache-2.0
"""What a CUDA engine finds wrong with a frame: from host memory at once, from GPU memory when asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scn_fx import Engine
from scn_fx.errors import ArgumentError, BoundError, NonFiniteError, OverflowedError, ScnError, SiteError
from tests.gpu.networks import small_network
from tests.oracle.compare import assert_same_bits

pytestmark = pytest.mark.gpu

SITES = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 3, 5, 5]], np.int32)
FEATURES = np.ones((3, 2), np.float16)

BAD_FRAMES = [
    (FEATURES, SITES + np.int32([0, 9, 0, 0]), SiteError, r"outside"),
    (FEATURES, SITES - np.int32([0, 0, 1, 0]), SiteError, r"\(0, 0, -1, 0\)"),
    (FEATURES, SITES + np.int32([1, 0, 0, 0]), SiteError, r"batch"),
    (FEATURES, SITES[[0, 1, 1]], SiteError, r"duplicate"),
    (FEATURES * np.float16(np.nan), SITES, NonFiniteError, r"NaN"),
    (FEATURES * np.float16(-np.inf), SITES, NonFiniteError, r"row 0"),
    (np.full((3, 2), 1e6, np.float32), SITES, NonFiniteError, r"65504"),
]


def on_gpu(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array).cuda() for array in arrays]


@pytest.mark.parametrize(("features", "sites", "error", "message"), BAD_FRAMES)
def test_bad_frames(features: np.ndarray, sites: np.ndarray, error: type[ScnError], message: str) -> None:
    data = small_network()
    engine, expected = Engine(data, "cuda"), Engine(data)(FEATURES, SITES)
    with pytest.raises(error, match=message) as said:
        engine(features, sites)
    with pytest.raises(error) as cpu:
        Engine(data)(features, sites)
    assert str(said.value).partition(";")[0] == str(cpu.value).partition(";")[0]
    assert_same_bits(engine(FEATURES, SITES), expected, "after an error")
    engine(*on_gpu(features, sites))
    with pytest.raises(error, match=message):
        engine.synchronize()
    engine.synchronize()  # told once
    engine(*on_gpu(features, sites))
    torch.cuda.synchronize()
    with pytest.raises(error, match=message):
        engine(*on_gpu(FEATURES, SITES))
    assert_same_bits(engine(*on_gpu(FEATURES, SITES)).cpu().numpy(), expected, "after a late error")


@pytest.mark.parametrize(
    ("features", "sites", "error", "message"),
    [
        (np.ones((3, 5), np.float16), SITES, SiteError, r"5"),
        (FEATURES[:2], SITES, SiteError, r"2 features.*3 indices"),
        (np.ones((3, 2), np.int32), SITES, SiteError, r"float16"),
        (np.ones(3, np.float16), SITES, SiteError, r"\[N, C\]"),
        (FEATURES, SITES.astype(np.int64), SiteError, r"int32"),
        (FEATURES, SITES[:, :3].copy(), SiteError, r"4"),
    ],
)
def test_what_is_known_at_once_is_raised_at_once(
    features: np.ndarray, sites: np.ndarray, error: type[ScnError], message: str
) -> None:
    engine = Engine(small_network(), "cuda")
    with pytest.raises(error, match=message):
        engine(features, sites)
    with pytest.raises(error, match=message):
        engine(*on_gpu(features, sites))


def test_bounds_name_layer_and_count() -> None:
    engine = Engine(small_network(bound=5), "cuda", max_voxels=100)
    with pytest.raises(BoundError, match=r"conv2\.0.*output_bound.*\b5\b"):
        engine(FEATURES, SITES)
    with pytest.raises(BoundError, match=r"conv2\.0"):
        engine(*on_gpu(FEATURES, SITES))
        engine.synchronize()


def test_sparse_results_raise_at_once() -> None:
    engine = Engine(small_network(bound=5, sparse=True), "cuda", max_voxels=100)
    with pytest.raises(BoundError, match=r"conv2\.0"):
        engine(*on_gpu(FEATURES, SITES))


def test_float16_overflow_names_the_layer() -> None:
    for scale, value, layer in ((3.0, 2000, r"conv2\.0"), (1.0, 60000, r"conv1\.(0|add)")):
        data = small_network(scale=scale, precision="fp16")
        features = np.full((3, 2), value, np.float16)
        with pytest.raises(OverflowedError, match=layer) as said:
            Engine(data, "cuda")(features, SITES)
        with pytest.raises(OverflowedError) as cpu:
            Engine(data)(features, SITES)
        assert str(said.value) == str(cpu.value)


def test_more_than_was_reserved() -> None:
    engine = Engine(small_network(), "cuda", max_voxels=2, max_batch_size=2)
    with pytest.raises(BoundError, match="max_voxels"):
        engine(FEATURES, SITES)
    with pytest.raises(ArgumentError, match="max_batch_size"):
        engine(FEATURES[:2], SITES[:2], 3)
    engine(FEATURES[:2], SITES[:2], 2)


def test_devices_that_are_not_there() -> None:
    with pytest.raises(ArgumentError, match=r"cuda:99.*scn-fx env"):
        Engine(small_network(), "cuda:99")
