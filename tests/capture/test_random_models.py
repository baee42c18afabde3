# SPDX-License-Identifier: Apache-2.0
"""The float graph of random models computes what spconv computes, in either dialect."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from scn_fx.capture import capture
from scn_fx.operators.dialects import LIBSPCONV, SCN_FX
from tests.capture.frames import frame, ordered, sparse
from tests.capture.random_models import RandomModel

SEEDS = range(int(os.environ.get("SCN_FX_MODELS", "100")))
BATCH = 2


@pytest.mark.parametrize("seed", SEEDS)
def test_random_models_compute_what_spconv_computes(seed: int) -> None:
    model = RandomModel(seed)
    features, indices = frame(model.in_channels, model.grid, 80, BATCH, seed)
    dialect = SCN_FX if seed % 2 else LIBSPCONV
    graph = capture(model, (sparse(features, indices, model.grid),), dialect=dialect)
    features, indices = frame(model.in_channels, model.grid, 90, BATCH, seed + 1)
    with torch.no_grad():
        expected: Any = model(sparse(features, indices, model.grid))
        found = graph(features, indices)
    if model.ending == "sparse":
        found, sites = ordered(*found)
        expected, wanted = ordered(expected.features, expected.indices)
        assert torch.equal(sites, wanted), model.words
    assert found.shape == expected.shape
    difference, largest = (each.abs().max() for each in (found - expected, expected))
    assert difference <= 1e-4 * max(float(largest), 1e-3), model.words
