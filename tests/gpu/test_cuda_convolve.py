# SPDX-License-Identifier: Apache-2.0
"""Every kernel of the GPU's registry, whatever an engine would choose, against the numpy oracle."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from scn_fx import _core
from scn_fx.errors import ArgumentError, NonFiniteError, OverflowedError, SiteError
from tests.oracle.compare import assert_same_bits
from tests.oracle.problems import PRECISIONS, Problem, problems, random_problem

pytestmark = pytest.mark.gpu

DEVICE = "cuda:0"


def _core_problem(problem: Problem, **other: object) -> _core.ConvolutionProblem:
    return _core.ConvolutionProblem(**(problem.arguments() | other))


@settings(max_examples=300)
@given(problems())
def test_every_kernel_has_what_the_oracle_has(problem: Problem) -> None:
    given = _core_problem(problem)
    names = _core.convolution_kernels(given, DEVICE)
    assert names
    for name in names:
        values, ran, times = _core.convolve(given, DEVICE, name)
        assert ran.split()[0] == name and times == []
        problem.check(values, ran)
        again, _, _ = _core.convolve(given, DEVICE, name)
        assert_same_bits(again, values, f"{ran}, twice")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("widths", [(5,), (16,), (32,), (64,), (128,), (256,)])
def test_the_usual_layers(precision: str, widths: tuple[int, ...]) -> None:
    """Submanifold layers as networks have them, stored as the next layer reads them."""
    for seed in range(3):
        problem = random_problem(
            seed, precisions=(precision,), kinds=("subm",), widths=widths, max_sites=2000, max_volume=10**7
        )
        given = _core_problem(problem)
        for name in _core.convolution_kernels(given, DEVICE):
            values, ran, _ = _core.convolve(given, DEVICE, name)
            problem.check(values, ran)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_registry_lists_what_each_precision_has(precision: str) -> None:
    """On Hopper; other GPUs have no kernels of its own."""
    hopper = _core.cuda_info()["devices"][0]["architecture"] == 90
    wide = random_problem(1, precisions=(precision,), kinds=("subm",), widths=(64,), max_volume=10**8)
    names = set(_core.convolution_kernels(_core_problem(wide), DEVICE))
    short = {"int8": "int8", "fp16": "half"}.get(precision)
    expected = {"chain"} if short is None else {f"tensor-{short}"}
    assert names == expected | ({f"hopper-{short}"} if short and hopper else set())
    narrow = random_problem(1, precisions=(precision,), kinds=("subm",), widths=(4,))
    names = set(_core.convolution_kernels(_core_problem(narrow), DEVICE))
    assert names == {"int8": {"tensor-int8"}, "fp16": {"input-chain", "chain"}, "fp32": {"chain"}}[precision]


@pytest.mark.parametrize("seed", range(12))
def test_without_a_name_the_kernel_is_the_first_that_suits(seed: int) -> None:
    problem = random_problem(seed)
    given = _core_problem(problem)
    values, ran, _ = _core.convolve(given, DEVICE)
    assert ran.split()[0] == _core.convolution_kernels(given, DEVICE)[0]
    problem.check(values, ran)


@pytest.mark.parametrize("seed", range(4))
def test_generic_kernels_do_not_hide_the_others_from_who_asks(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = random_problem(seed, precisions=("int8",), widths=(64,), max_volume=10**8)
    given = _core_problem(problem)
    before = _core.convolution_kernels(given, DEVICE)
    monkeypatch.setenv("SCN_FX_CUDA_KERNELS", "generic")
    assert _core.convolution_kernels(given, DEVICE) == before
    assert _core.convolve(given, DEVICE)[1].split()[0] == "tensor-int8"
    assert _core.convolve(given, DEVICE, before[0])[1].split()[0] == before[0]


def test_a_kernel_that_cannot_compute_the_problem() -> None:
    given = _core_problem(random_problem(3, precisions=("fp16",), widths=(4,)))
    for name in ("tensor-half", "hopper-half", "tensor-int8", "avx2 blocks"):
        with pytest.raises(ArgumentError, match=rf"conv: no kernel '{name}' .*one of 'input-chain', 'chain'"):
            _core.convolve(given, DEVICE, name)


def test_repeated_runs_are_timed_and_change_nothing() -> None:
    for precision in PRECISIONS:
        problem = random_problem(5, precisions=(precision,), widths=(32,))
        values, ran, seconds = _core.convolve(_core_problem(problem), DEVICE, repeat=20)
        assert len(seconds) == 20 and all(0 < s < 1 for s in seconds)
        problem.check(values, f"{ran}, after repeated runs")


def test_errors_are_those_of_the_cpu() -> None:
    problem = random_problem(7, precisions=("int8",), kinds=("subm",), widths=(16,), max_sites=100)
    features, kernel_map = problem.operands.features.copy(), problem.operands.kernel_map.copy()
    assert len(features)
    kernel_map[0, 0] = len(features)
    for device in ("cpu", DEVICE):
        with pytest.raises(SiteError, match="conv: the kernel map reads input row"):
            _core.convolve(_core_problem(problem, kernel_map=kernel_map), device)
        with pytest.raises(ArgumentError, match="conv: the dynamic range of its result must be"):
            _core.convolve(_core_problem(problem, output_amax=-1.0), device)
    features[0, 0] = float("nan")
    for device in ("cpu", DEVICE):
        with pytest.raises(NonFiniteError, match="conv: its input"):
            _core.convolve(_core_problem(problem, features=features), device)
    half = random_problem(7, precisions=("fp16",), kinds=("subm",), widths=(16,), max_sites=100)
    large = (half.operands.features.astype("float32") + 1) * 1e5
    for device in ("cpu", DEVICE):
        with pytest.raises(OverflowedError, match="conv"):
            _core.convolve(_core_problem(half, features=large), device)
