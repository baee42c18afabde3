# SPDX-License-Identifier: Apache-2.0
"""Each metric against its definition in plain numpy, and the faults that are counted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from scn_fx.errors import CompareError
from scn_fx.runtime import align_sites, compare_arrays, difference

Array = npt.NDArray[Any]


def pair(seed: int = 0, shape: tuple[int, ...] = (3, 7, 11), dtype: str = "float32") -> tuple[Array, Array]:
    """Two similar arrays; a third of the values are equal, a fifth are zero on both sides."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape)
    b = a + 0.05 * rng.standard_normal(shape)
    draw = rng.random(shape)
    b[draw < 1 / 3] = a[draw < 1 / 3]
    a[draw > 0.8] = b[draw > 0.8] = 0.0
    return a.astype(dtype), b.astype(dtype)


@pytest.mark.parametrize("piece", [1 << 20, 10], ids=["one piece", "pieces"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_metrics_equal_their_definitions(dtype: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "_PIECE", piece)
    a, b = pair(dtype=dtype)
    found = compare_arrays(a, b)
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    d = np.abs(x - y)
    assert found.count == x.size
    assert found.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)
    assert found.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / (d**2).sum()), rel=1e-12)
    assert found.max_abs == d.max()
    assert found.mean_abs == pytest.approx(d.mean(), rel=1e-12)
    assert found.equal_share == np.mean(x == y)
    either = (x != 0) | (y != 0)
    assert found.equal_nonzero_share == np.mean((x == y)[either])
    assert found.buckets == {
        "> 75% of max": np.mean(d > 0.75 * d.max()),
        "> 50% of max": np.mean(d > 0.5 * d.max()),
        "> 25% of max": np.mean(d > 0.25 * d.max()),
        "> 0": np.mean(d > 0),
        "= 0": np.mean(d == 0),
    }
    assert not found.identical and found.faults == ()


def test_equal_arrays_are_identical() -> None:
    a, _ = pair()
    found = compare_arrays(a, a.copy())
    assert found.identical and found.cosine == 1.0 and found.sqnr_db == math.inf and found.max_abs == 0.0
    assert found.equal_share == found.equal_nonzero_share == 1.0
    assert found.buckets["= 0"] == 1.0 and found.faults == ()


def test_equal_values_of_other_bits_are_not_identical() -> None:
    assert not compare_arrays(np.float32([1, 2]), np.float16([1, 2])).identical
    signs = compare_arrays(np.float32([1, 0.0]), np.float32([1, -0.0]))
    assert not signs.identical and signs.equal_share == 1.0 and signs.sqnr_db == math.inf


def test_nan_and_infinity_are_counted_and_left_out() -> None:
    a = np.float32([1, 2, 3, 4, 5])
    b = np.float32([1, np.nan, np.inf, -np.inf, 5.5])
    found = compare_arrays(a, b)
    assert (found.result_nan, found.result_infinite, found.reference_nan) == (1, 2, 0)
    assert found.max_abs == 0.5 and found.equal_share == 0.2
    assert found.sqnr_db == pytest.approx(10 * np.log10((1 + 25) / 0.25))
    assert found.faults == (
        "the result holds 1 NaN values",
        "the result holds 2 infinite (overflowed) values",
    )


def test_the_same_nan_on_both_sides_is_a_fault_of_both() -> None:
    a = np.float32([1, np.nan])
    found = compare_arrays(a, a)
    assert found.identical and found.equal_share == 0.5
    assert len(found.faults) == 2


@pytest.mark.parametrize("zero_side", ["reference", "result"])
def test_an_all_zero_side_is_a_fault(zero_side: str) -> None:
    a, b = pair()
    sides = (np.zeros_like(a), b) if zero_side == "reference" else (a, np.zeros_like(b))
    found = compare_arrays(*sides)
    assert found.faults == (f"the {zero_side} is all zero",)
    assert found.cosine == 0.0
    assert found.sqnr_db == (-math.inf if zero_side == "reference" else pytest.approx(0.0))


def test_two_empty_arrays_are_equal_without_fault() -> None:
    empty = np.zeros((0, 4), np.float32)
    found = compare_arrays(empty, empty)
    assert found.identical and found.count == 0 and found.faults == () and found.mean_abs == 0.0
    mixed = compare_arrays(empty, empty.astype(np.float16))
    assert mixed.equal_share == 1.0 and mixed.faults == ()


def test_the_sum_of_two_differences_is_that_of_the_joined_arrays() -> None:
    (a, b), (c, d) = pair(1), pair(2)
    both = compare_arrays(a, b) + compare_arrays(c, d)
    joined = compare_arrays(np.concatenate([a, c]), np.concatenate([b, d]))
    for metric in ("count", "equal", "nonzero", "max_abs", "cosine", "sqnr_db", "mean_abs"):
        assert getattr(both, metric) == pytest.approx(getattr(joined, metric), rel=1e-12), metric
    assert not (compare_arrays(a, a) + compare_arrays(c, d)).identical
    assert (compare_arrays(a, a) + compare_arrays(c, c)).identical


def test_integers_and_shapes() -> None:
    assert compare_arrays(np.arange(4), np.arange(4)[None]).identical
    with pytest.raises(CompareError, match=r"float32 \[2, 3\] and float32 \[3, 2\]"):
        compare_arrays(np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32))
    with pytest.raises(CompareError, match="numbers"):
        compare_arrays(np.array(["a"]), np.array(["a"]))


def test_json_has_no_infinite_numbers() -> None:
    a, _ = pair()
    assert compare_arrays(a, a).to_dict()["sqnr_db"] is None


def test_sparse_rows_are_matched_by_site() -> None:
    rng = np.random.default_rng(0)
    sites = np.stack(np.unravel_index(rng.permutation(2 * 3 * 4 * 5)[:30], (2, 3, 4, 5)), 1).astype(np.int32)
    values = rng.standard_normal((30, 6)).astype(np.float32)
    order = rng.permutation(30)
    a, b = align_sites((values, sites), (values[order], sites[order]))
    assert compare_arrays(a, b).identical
    assert not compare_arrays(values, values[order]).identical, "the order matters without sites"
    same, other = align_sites((values, sites), (values, sites.copy()))
    assert same is values and other is values, "rows in one order are not copied"


def test_other_sites_are_an_error_that_names_one() -> None:
    sites = np.int32([[0, 0, 0, 0], [0, 1, 2, 3]])
    values = np.ones((2, 3), np.float32)
    with pytest.raises(CompareError, match=r"2 sites, the result 1.*\[0, 0, 0, 0\]"):
        align_sites((values, sites), (values[1:], sites[1:]))
    with pytest.raises(CompareError, match="repeated site"):
        align_sites((values, sites), (np.ones((3, 3)), sites[[0, 1, 1]]))
    with pytest.raises(CompareError, match="one site"):
        align_sites((values, sites[:, :3]), (values, sites))
