# SPDX-License-Identifier: Apache-2.0
"""Compiled kernel maps equal the oracle's, entry by entry; wrong sites are refused with their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given

from scn_fx import _core
from scn_fx.errors import BoundError, SiteError
from tests.oracle import geometry
from tests.oracle.frames import Frame, random_sites
from tests.oracle.strategies import Case, cases

Ints = npt.NDArray[np.int32]
UNBOUNDED = 2**31 - 1
SITES = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [1, 3, 4, 5]], np.int32)


def conv_map(case: Case, **options: Any) -> tuple[Ints, Ints]:
    """The compiled map of a strided or transposed case."""
    bound = options.pop("output_bound", UNBOUNDED)
    numbers = case.kernel, case.stride, case.padding, case.dilation
    transposed = case.kind == "transposed"
    shapes = case.shape, case.out_shape
    return _core.conv_map(case.sites, case.batch_size, *shapes, *numbers, transposed, bound, **options)


def compiled_maps(case: Case, threads: int = 0) -> tuple[Ints, Ints]:
    """Output sites and kernel map of any case, from the compiled functions."""
    if case.kind == "subm":
        arguments = case.sites, case.batch_size, case.shape, case.kernel, case.dilation
        return case.sites, _core.subm_map(*arguments, threads=threads)
    outputs, kernel_map = conv_map(case, threads=threads)
    if case.kind == "inverse":
        return case.sites, _core.inverse_map(kernel_map, len(case.sites))
    return outputs, kernel_map


def _assert_equal(got: Ints, expected: Ints, what: str) -> None:
    assert got.dtype == np.int32 and got.flags.c_contiguous, what
    np.testing.assert_array_equal(got, expected, err_msg=what)


EMPTY = Case(
    kind="strided",
    sites=np.zeros((0, 4), np.int32),
    batch_size=1,
    shape=(4, 4, 4),
    out_shape=(2, 2, 2),
    kernel=(3, 3, 3),
    stride=(2, 2, 2),
    padding=(1, 1, 1),
    dilation=(1, 1, 1),
    output_padding=(0, 0, 0),
    channels=(1, 1),
    seed=0,
)


@given(cases())
@example(EMPTY)
@example(Case(**{**vars(EMPTY), "kind": "inverse"}))
def test_maps_equal_the_oracles(case: Case) -> None:
    _, outputs, kernel_map = case.oracle_maps()
    for threads in (1, 2):
        got_outputs, got_map = compiled_maps(case, threads)
        _assert_equal(got_outputs, outputs, "output sites")
        _assert_equal(got_map, kernel_map, "kernel map")


def test_maps_of_a_whole_frame(frame: Frame) -> None:
    shape, numbers = frame.shape, ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1))
    out_shape = geometry.output_shape(shape, *numbers)
    outputs, kernel_map = geometry.strided_map(frame.indices, out_shape, *numbers)
    for threads in (1, 2):
        got = _core.conv_map(
            frame.indices, 1, shape, out_shape, *numbers, False, UNBOUNDED, threads=threads
        )  # fmt: skip
        _assert_equal(got[0], outputs, "output sites")
        _assert_equal(got[1], kernel_map, "strided map")
        subm = _core.subm_map(frame.indices, 1, shape, (3, 3, 3), (1, 1, 1), threads=threads)
        _assert_equal(
            subm, geometry.submanifold_map(frame.indices, shape, (3, 3, 3), (1, 1, 1)), "subm map"
        )  # fmt: skip


def _subm(sites: Any, batch_size: int = 2, shape: tuple[int, ...] = (4, 5, 6)) -> Ints:
    return _core.subm_map(sites, batch_size, shape, (3, 3, 3), (1, 1, 1), name="conv1.0")


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ([0, 4, 0, 0], "(0, 4, 0, 0)"),
        ([0, 0, 5, 0], "(0, 0, 5, 0)"),
        ([0, 0, 0, 6], "(0, 0, 0, 6)"),
        ([2, 0, 0, 0], "(2, 0, 0, 0)"),
        ([0, -1, 0, 0], "(0, -1, 0, 0)"),
        ([-1, 0, 0, 0], "(-1, 0, 0, 0)"),
    ],
)
def test_sites_outside_the_grid_are_refused(row: list[int], place: str) -> None:
    with pytest.raises(SiteError, match=r"conv1\.0") as error:
        _subm(np.array([*SITES.tolist(), row], np.int32))
    assert place in str(error.value) and "4, 5, 6" in str(error.value)


@pytest.mark.parametrize("repeat", [0, 2])
def test_duplicate_sites_are_refused(repeat: int) -> None:
    with pytest.raises(SiteError, match="duplicate"):
        _subm(np.concatenate([SITES, SITES[repeat : repeat + 1]]))


def test_duplicates_among_many_sites_are_refused() -> None:
    sites = random_sites(np.random.default_rng(0), 400, (4, 40, 60), 2)
    _subm(sites, 2, (4, 40, 60))
    sites[399] = sites[17]
    with pytest.raises(SiteError, match="duplicate"):
        _subm(sites, 2, (4, 40, 60))


@pytest.mark.parametrize(
    "sites", [SITES.astype(np.int64), SITES.astype(np.float32), SITES[:, :3].copy(), SITES[0], SITES[None]]
)
def test_indices_of_another_type_or_shape_are_refused(sites: npt.NDArray[np.generic]) -> None:
    with pytest.raises(SiteError, match="int32"):
        _subm(sites)


@given(cases(("strided", "transposed")))
def test_more_sites_than_the_bound_are_an_error(case: Case) -> None:
    count = len(case.oracle_maps()[1])
    assert len(conv_map(case, output_bound=count)[0]) == count
    if count:
        with pytest.raises(BoundError, match=r"conv2\.0") as error:
            conv_map(case, output_bound=count - 1, name="conv2.0")
        assert str(count) in str(error.value) and str(count - 1) in str(error.value)


def test_inverse_map_refuses_rows_beyond_the_input() -> None:
    with pytest.raises(SiteError):
        _core.inverse_map(np.array([[0, 3]], np.int32), 3)
