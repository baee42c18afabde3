# SPDX-License-Identifier: Apache-2.0
"""The oracle's kernel maps against dense convolutions and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from tests.oracle import geometry
from tests.oracle.dense import dense_convolution, reached_sites
from tests.oracle.numerics import convolution_float64
from tests.oracle.strategies import Case, cases


@given(cases(("subm", "strided", "transposed"), max_channels=4))
def test_convolution_over_the_map_equals_a_dense_convolution(case: Case) -> None:
    rng = np.random.default_rng(case.seed)
    features = rng.normal(size=(len(case.sites), case.channels[0]))
    weight = rng.normal(size=(case.channels[1], *case.kernel, case.channels[0]))
    _, outputs, kernel_map = case.oracle_maps()
    ours = convolution_float64(features, weight, np.zeros(len(weight)), kernel_map)
    b, z, y, x = outputs.T
    dense = dense_convolution(case, features, weight)
    np.testing.assert_allclose(ours, dense[b, :, z, y, x], rtol=1e-9, atol=1e-9)
    if case.kind != "subm":  # nothing is left elsewhere: the output sites are all that inputs reach
        dense[b, :, z, y, x] = 0
        assert np.abs(dense).max(initial=0) < 1e-9


@given(cases(("strided", "transposed")))
def test_output_sites_are_those_reached_in_ascending_order(case: Case) -> None:
    _, outputs, kernel_map = case.oracle_maps()
    assert outputs.dtype == kernel_map.dtype == np.int32
    np.testing.assert_array_equal(outputs, reached_sites(case))
    assert kernel_map.shape == (len(outputs), case.volume)
    assert (kernel_map.max(axis=1, initial=-1) >= 0).all(), "an output that no input reaches"


@given(cases(("inverse",)))
def test_inverse_map_swaps_the_sides_of_its_partners(case: Case) -> None:
    inputs, outputs, kernel_map = case.oracle_maps()
    partner = Case(**{**vars(case), "kind": "strided"}).oracle_maps()[2]
    pairs = {(n, k, m) for m, k, n in zip(*np.nonzero(partner >= 0), partner[partner >= 0], strict=True)}
    swapped = {
        (n, k, m) for n, k, m in zip(*np.nonzero(kernel_map >= 0), kernel_map[kernel_map >= 0], strict=True)
    }
    assert pairs == swapped
    assert len(kernel_map) == len(outputs) == len(case.sites) and len(inputs) == len(partner)


def test_submanifold_map_by_hand() -> None:
    sites = np.array([[0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], np.int32)
    kernel_map = geometry.submanifold_map(sites, (1, 1, 2), (1, 1, 3), (1, 1, 1))
    assert kernel_map.tolist() == [[1, 0, -1], [-1, 1, 0], [-1, 2, -1]]


def test_strided_map_by_hand() -> None:
    sites = np.array([[0, 0, 0, 4], [0, 0, 0, 1]], np.int32)  # offsets -1, 0, 1 around 0, 2 and 4
    outputs, kernel_map = geometry.strided_map(sites, (1, 1, 3), (1, 1, 3), (1, 1, 2), (0, 0, 1), (1, 1, 1))
    assert outputs.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2]]
    assert kernel_map.tolist() == [[-1, -1, 1], [1, -1, -1], [-1, 0, -1]]


def test_offsets_are_numbered_with_x_fastest() -> None:
    assert [tuple(k.tolist()) for k in geometry.offsets((1, 2, 2))] == [
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (0, 1, 1),
    ]


def test_keys_do_not_overflow_on_large_grids() -> None:
    shape = (2000, 3000, 3000)
    sites = np.array([[1, 1999, 2999, 2999], [0, 0, 0, 0]], np.int32)
    assert geometry.site_keys(sites, shape).tolist() == [2 * 2000 * 3000 * 3000 - 1, 0]
    kernel_map = geometry.submanifold_map(sites, shape, (3, 3, 3), (1, 1, 1))
    assert kernel_map[:, 13].tolist() == [0, 1] and (kernel_map >= 0).sum() == 2


def test_align_finds_rows_and_refuses_other_sites() -> None:
    have = np.array([[0, 0, 0, 2], [0, 0, 0, 1], [1, 3, 0, 0]], np.int32)
    assert geometry.align(have[[2, 0, 1]], have).tolist() == [2, 0, 1]
    with pytest.raises(AssertionError, match="is missing"):
        geometry.align(np.roll(have, 1, axis=1), have)
