# SPDX-License-Identifier: Apache-2.0
"""Every kernel of the CPU's registry, whatever an engine would choose, against the numpy oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from scn_fx import _core
from scn_fx.errors import ArgumentError, OverflowedError, SiteError
from tests.core.activations import NONE, RELU
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle.compare import assert_same_bits
from tests.oracle.problems import Problem, problems, random_problem

KERNELS = {
    "int8": {"portable": ["portable blocks"], "avx2": ["avx2 rows", "avx2 blocks"],
             "avxvnni": ["avxvnni rows", "avxvnni blocks"],
             "avx512vnni": ["avx512vnni rows", "avx512vnni blocks"], "amx": ["amx tiles"]},
    "fp32": {"portable": ["portable blocks"], "avx2": ["avx2 rows", "avx2 blocks"],
             "avx512vnni": ["avx512 rows", "avx512 blocks"]},
}  # fmt: skip


def _problem(**other: Any) -> _core.ConvolutionProblem:
    given = {
        "features": np.ones((3, 4), np.float32),
        "weight": np.ones((16, 1, 1, 1, 4), np.float32),
        "bias": None,
        "kernel_map": np.arange(3, dtype=np.int32)[:, None],
        "precision": "fp32",
        "output_precision": "fp32",
        "activation": NONE,
        "name": "conv9",
    }
    return _core.ConvolutionProblem(**(given | other))


def _int8(**other: Any) -> _core.ConvolutionProblem:
    ranges = {"input_amax": 1.0, "weight_amax": np.ones(16, np.float32)}
    return _problem(precision="int8", output_precision="int8", **ranges, **other)


@settings(max_examples=150)
@given(problems())
def test_every_kernel_has_what_the_oracle_has(problem: Problem) -> None:
    given = _core.ConvolutionProblem(**problem.arguments())
    names = _core.convolution_kernels(given)
    assert names[-1] == "portable blocks"
    for name in names:
        one, ran, times = _core.convolve(given, config=name, threads=1)
        two, _, _ = _core.convolve(given, "cpu", name, threads=2)
        assert ran == name and times == []
        problem.check(one, name)
        assert_same_bits(two, one, f"{name}, two threads against one")


@pytest.mark.parametrize("isa", SUPPORTED)
@pytest.mark.parametrize("seed", range(6))
def test_without_a_name_the_kernel_is_that_of_the_instruction_set(isa: str, seed: int) -> None:
    problem = random_problem(seed)
    given = _core.ConvolutionProblem(**problem.arguments())
    with instruction_set(isa):
        values, ran, _ = _core.convolve(given, threads=1)
        assert ran in _core.convolution_kernels(given)
    problem.check(values, ran)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_all_kernels_of_this_processor_suit_some_problem(precision: str) -> None:
    """Names of the registry, so that none is lost; whose tables need other processors are not asked for."""
    wide = np.ones((3, 32), np.float32), np.ones((16, 1, 1, 1, 32), np.float32)
    make = _int8 if precision == "int8" else _problem
    found = {name for more in ({}, dict(zip(("features", "weight"), wide, strict=True)))
             for name in _core.convolution_kernels(make(**more))}  # fmt: skip
    assert found == {name for isa in SUPPORTED for name in KERNELS[precision].get(isa, [])}


def test_what_a_kernel_cannot_compute_is_not_listed() -> None:
    narrow = _int8()
    signed = _int8(features=-np.ones((3, 4), np.float32))
    rows = [name for name in _core.convolution_kernels(narrow) if name in ("avx2 rows", "avxvnni rows")]
    listed = _core.convolution_kernels(signed)
    assert not set(rows) & set(listed)
    for name in rows:
        with pytest.raises(ArgumentError, match=f"conv9: no kernel '{name}' .*4 -> 16, 1 offsets.*'portable"):
            _core.convolve(signed, config=name)


@pytest.mark.parametrize("name", ["avx2", "blocks", "hopper-int8", "portable blocks "])
def test_an_unknown_kernel_is_an_error_that_names_the_others(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"conv9: no kernel '{name}' .*one of .*'portable blocks'"):
        _core.convolve(_problem(), config=name)


@pytest.mark.parametrize("repeat", [1, 5])
def test_repeated_runs_are_timed_and_change_nothing(repeat: int) -> None:
    problem = random_problem(11, precisions=("int8",))
    given = _core.ConvolutionProblem(**problem.arguments())
    values, _, seconds = _core.convolve(given, repeat=repeat, threads=1)
    assert len(seconds) == repeat and all(0 < s < 10 for s in seconds)
    problem.check(values, "after repeated runs")


@pytest.mark.parametrize("repeat", [-1, 10**6 + 1, 2**70])
def test_repeat_has_limits(repeat: int) -> None:
    with pytest.raises(ArgumentError, match="repeat must be 0 to 1000000"):
        _core.convolve(_problem(), repeat=repeat)


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:-1", "cuda:1234", "cuda:0x", "CPU"])
def test_unknown_devices(device: str) -> None:
    for call in (_core.convolve, _core.convolution_kernels):
        with pytest.raises(ArgumentError, match="device must be 'cpu', 'cuda' or 'cuda:N'"):
            call(_problem(), device)


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ArgumentError, match="cuda:999 cannot be used"):
        _core.convolve(_problem(), "cuda:999")


@pytest.mark.parametrize("amax", [-1.0, 1e-40, 1e39, float("nan"), float("inf")])
def test_the_range_of_a_stored_result_must_be_usable(amax: float) -> None:
    with pytest.raises(ArgumentError, match="conv9: the dynamic range of its result must be"):
        _core.convolve(_problem(output_amax=amax))


def test_errors_are_those_of_the_operator() -> None:
    with pytest.raises(SiteError, match="conv9: the kernel map reads input row 3"):
        _core.convolve(_problem(kernel_map=np.full((1, 1), 3, np.int32)))
    with pytest.raises(SiteError, match="conv9: the kernel map has 2 columns"):
        _core.convolve(_problem(kernel_map=np.zeros((1, 2), np.int32)))
    with pytest.raises(ArgumentError, match="int8 needs the ranges"):
        _core.convolve(_problem(precision="int8"))
    with pytest.raises(OverflowedError, match="conv9"):
        _core.convolve(_problem(features=np.full((3, 4), 1e6, np.float32), output_precision="fp16"))
    with pytest.raises(ArgumentError, match="'int8', 'fp16' or 'fp32'"):
        _problem(precision="int4")
    with pytest.raises(ArgumentError, match=r"conv9.*'Softplus'"):
        _problem(activation=("Softplus", 0.0))


def test_a_problem_without_outputs() -> None:
    empty = _problem(kernel_map=np.zeros((0, 1), np.int32), activation=RELU)
    values, ran, seconds = _core.convolve(empty, repeat=2)
    assert values.shape == (0, 16) and ran and len(seconds) == 2
