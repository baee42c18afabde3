# SPDX-License-Identifier: Apache-2.0
"""Ten thousand frames leave memory as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scn_fx import Engine
from tests.gpu.networks import GRID, small_network
from tests.oracle.compare import assert_same_bits
from tests.oracle.frames import random_sites

pytestmark = pytest.mark.gpu

FRAMES = 10_000
MEGABYTE = 2**20


def _host_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _in_some_round(grown: Callable[[], int], limit: int) -> bool:
    """Whether memory grew by less than `limit` bytes in one of three rounds.

    The driver tells what all processes use, and other tests may run at the same time; but what leaks grows in
    every round.
    """
    return any(grown() < limit for _ in range(3))


@pytest.mark.parametrize("graph", [True, False])
def test_memory_stays_the_same(graph: bool) -> None:
    rng = np.random.default_rng(0)
    data = small_network()
    engine = Engine(data, "cuda", graph=graph)
    frames = []
    for count in (0, 1, 37, 200, 500):
        sites = random_sites(rng, count, GRID)
        frames.append((rng.normal(size=(count, 2)).astype(np.float16), sites))
    inputs = [[torch.from_numpy(array).cuda() for array in frame] for frame in frames]
    expected = [Engine(data)(*frame) for frame in frames]

    def run(count: int) -> tuple[int, int]:
        for number in range(count):
            if number % 100:
                engine(*inputs[number % len(inputs)])
            else:
                engine(*frames[number // 100 % len(frames)])
        engine.synchronize()
        return torch.cuda.mem_get_info()[0], _host_bytes()

    free, host = run(500)

    def grown() -> int:
        nonlocal free
        before, (free, _) = free, run(FRAMES)
        return before - free

    assert _in_some_round(grown, MEGABYTE)
    assert _host_bytes() - host < 8 * MEGABYTE
    for frame, want in zip(frames, expected, strict=True):
        assert_same_bits(engine(*frame), want)


def test_engines_give_their_memory_back() -> None:
    data = small_network()
    features, sites = np.ones((1, 2), np.float16), np.zeros((1, 4), np.int32)

    def free_after(engines: int) -> int:
        for _ in range(engines):
            Engine(data, "cuda")(features, sites)
        return int(torch.cuda.mem_get_info()[0])

    free = free_after(10)

    def grown() -> int:
        nonlocal free
        before, free = free, free_after(20)
        return before - free

    assert _in_some_round(grown, 4 * MEGABYTE)
