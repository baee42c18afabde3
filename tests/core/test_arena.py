# SPDX-License-Identifier: Apache-2.0
"""Buffers in one arena: those that live at the same step lie apart, and little memory is wasted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scn_fx import _core

ALIGNMENT = 256
STEPS = 12

Span = tuple[int, int, int]


def _span(size: int, ends: tuple[int, int]) -> Span:
    return size, min(ends), max(ends)


STEP = st.integers(0, STEPS - 1)
SPANS = st.lists(st.builds(_span, st.integers(0, 5000), st.tuples(STEP, STEP)), max_size=30)


def _room(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _live_at_most(spans: list[Span]) -> int:
    return max(
        sum(_room(size) for size, first, last in spans if first <= step <= last) for step in range(STEPS)
    )


@given(SPANS)
def test_spans_that_meet_lie_apart(spans: list[Span]) -> None:
    offsets, total = _core.place_spans(spans)
    assert len(offsets) == len(spans)
    placed = list(zip(offsets, spans, strict=True))
    for number, (offset, (size, first, last)) in enumerate(placed):
        assert offset >= 0 and offset % ALIGNMENT == 0 and offset + size <= total
        for other, (other_size, other_first, other_last) in placed[:number]:
            if size and other_size and first <= other_last and other_first <= last:
                assert offset + size <= other or other + other_size <= offset


@given(SPANS)
def test_the_arena_is_between_what_lives_at_once_and_all(spans: list[Span]) -> None:
    _, total = _core.place_spans(spans)
    assert _live_at_most(spans) <= total <= sum(_room(size) for size, _, _ in spans)


def test_a_network_in_levels_needs_no_more_than_lives_at_once() -> None:
    """Maps live from the start; activations grow from level to level, three at a time."""
    maps = [(11_000_000, 0, 5), (11_000_000, 0, 9), (9_000_000, 0, 13)]
    levels = [(6_400_000, 0), (12_800_000, 4), (25_600_000, 8)]
    rows = [(size, first + n, first + n + 2) for size, first in levels for n in range(3)]
    spans = maps + rows
    _, total = _core.place_spans(spans)
    assert total <= 1.05 * _live_at_most(spans)
