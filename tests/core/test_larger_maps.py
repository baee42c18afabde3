# SPDX-License-Identifier: Apache-2.0
"""Dense maps larger than the grid of their sites, and rulebooks without a name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scn_fx import Engine
from scn_fx.errors import OnnxError
from tests.oracle import builder, strategies
from tests.oracle.compare import assert_same_bits
from tests.oracle.frames import random_sites
from tests.oracle.larger_maps import larger_map
from tests.oracle.network import run_network

GRID = (5, 6, 7)


@given(strategies.seeds, strategies.triples(0, 5), st.sampled_from([1, 3, 8, 16, 40]), st.booleans())
def test_sites_keep_their_places(
    seed: int, extra: tuple[int, int, int], channels: int, deferred: bool
) -> None:
    network = larger_map(seed, extra, channels, relu=deferred)
    for options in ({}, {"precision": "fp32"}, {"threads": 1}):
        engine = Engine(network.onnx, **options)
        for batch in (2, 1):
            kept = network.sites[:, 0] < batch
            frame = network.features[kept], network.sites[kept]
            expected = run_network(
                network.of_batch(batch), *frame, batch, precision=options.get("precision")
            ).dense
            assert_same_bits(engine(*frame, batch), expected.astype(engine(*frame, batch).dtype))


@pytest.mark.parametrize("axis", range(3))
def test_a_smaller_map_is_refused(axis: int) -> None:
    extra = [1, 1, 1]
    extra[axis] = -1
    with pytest.raises(OnnxError, match=r"'dense': input_spatial_shape is .* lie on a larger grid"):
        Engine(larger_map(0, (extra[0], extra[1], extra[2]), 3).onnx)


def test_a_map_whose_two_shapes_differ_is_refused() -> None:
    data = larger_map(0, (1, 0, 2), 3, said=(6, 6, 7)).onnx
    with pytest.raises(
        OnnxError, match=r"'dense': output_shape must be \[batch, 3, 6, 6, 7\].*\[2, 3, 5, 3, 7\]"
    ):
        Engine(data)


def _inverse(first: str, second: str, inverse: str) -> bytes:
    weight = np.ones((2, 3, 3, 3, 2), np.float16)
    half = (3, 3, 4)
    down = {"stride": (2, 2, 2), "padding": (1, 1, 1)}
    return builder.build_onnx(
        builder.convolution(
            "same", "features", "a", weight, input_shape=GRID, output_shape=GRID, padding=(1, 1, 1),
            subm=True, rulebook=first,
        ),
        builder.convolution(
            "down", "a", "b", weight, input_shape=GRID, output_shape=half, rulebook=second, **down
        ),
        builder.convolution(
            "up", "b", "c", weight, input_shape=half, output_shape=GRID, rulebook=inverse, inverse=True,
            **down,
        ),
    )  # fmt: skip


def test_an_empty_rulebook_is_a_map_of_the_layers_own() -> None:
    sites = random_sites(np.random.default_rng(0), 40, GRID)
    features = np.ones((len(sites), 2), np.float16) * np.float16(0.01)
    named, _ = Engine(_inverse("a", "b", "b"))(features, sites)
    assert_same_bits(Engine(_inverse("", "b", "b"))(features, sites)[0], named)


@pytest.mark.parametrize("others", [("", ""), ("a", "b")])
def test_an_inverse_convolution_cannot_name_its_partner_by_nothing(others: tuple[str, str]) -> None:
    with pytest.raises(OnnxError, match=r"'up': .*rulebook is empty.*the same non-empty indice_key"):
        Engine(_inverse(*others, ""))
    with pytest.raises(OnnxError, match=r"'up': .*'c' is none. Give both layers the same indice_key"):
        Engine(_inverse(*others, "c"))
