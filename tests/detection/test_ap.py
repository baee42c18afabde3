# SPDX-License-Identifier: Apache-2.0
"""AP by centre distance against a plain, slow reading of the benchmark's definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scn_fx.detection.ap import DISTANCES, RANGES, average_precision
from scn_fx.errors import ArgumentError
from scn_fx.lidar.boxes import CLASSES, Boxes


def boxes(rows: list[tuple[float, float, int, float]], points: int = 9) -> Boxes:
    """Boxes at (x, y) of a class, with a score."""
    count = len(rows)
    centre = [(x, y, 0.0) for x, y, _, _ in rows]
    return Boxes.of(
        np.array(centre).reshape(-1, 3),
        np.ones((count, 3)),
        np.zeros(count),
        [label for _, _, label, _ in rows],
        points=np.full(count, points),
        score=[score for *_, score in rows],
    )


def slow_average(found: list[list], truth: list[list], distance: float) -> float:
    """One class: lists of (x, y, score) and (x, y) by frame; lists and loops alone, as the paper tells it."""
    ranked = sorted(
        (
            (score, -i, frame, x, y)
            for frame, rows in enumerate(found)
            for i, (x, y, score) in enumerate(rows)
        ),
        key=lambda item: (-item[0], item[2], -item[1]),
    )
    number = sum(map(len, truth))
    taken: set[tuple[int, int]] = set()
    right, precision, recall = 0, [], []
    for seen, (_, _, frame, x, y) in enumerate(ranked, 1):
        best, which = math.inf, -1
        for j, (u, v) in enumerate(truth[frame]):
            if (frame, j) not in taken and math.hypot(x - u, y - v) < best:
                best, which = math.hypot(x - u, y - v), j
        if best < distance:
            taken.add((frame, which))
            right += 1
        precision.append(right / seen)
        recall.append(right / number)
    if not right:
        return 0.0
    total = 0.0
    for i in range(11, 101):
        wanted = i / 100
        if wanted > recall[-1]:
            read = 0.0
        else:  # the last measured point at or before, and the line to the next
            k = max((k for k in range(len(recall)) if recall[k] <= wanted), default=-1)
            if k < 0:
                read = precision[0]
            elif k == len(recall) - 1 or recall[k] == wanted:
                read = precision[k]
            else:
                part = (wanted - recall[k]) / (recall[k + 1] - recall[k])
                read = precision[k] + part * (precision[k + 1] - precision[k])
        total += max(0.0, read - 0.1)
    return total / 90 / 0.9


place = st.tuples(st.integers(-40, 40), st.integers(-40, 40)).map(lambda p: (p[0] * 0.31, p[1] * 0.31))
frames = st.lists(
    st.tuples(
        st.lists(st.tuples(place, st.integers(0, 1)), max_size=6),
        st.lists(st.tuples(place, st.integers(0, 1), st.integers(1, 20)), max_size=8),
    ),
    min_size=1,
    max_size=4,
)


@given(frames)
def test_it_is_what_the_definition_says(sample: list) -> None:
    labels = [boxes([(*p, c, 1.0) for p, c in truth]) for truth, _ in sample]
    found = [boxes([(*p, c, s / 20) for p, c, s in guesses]) for _, guesses in sample]
    result = average_precision(found, labels)
    for label in (0, 1):
        # The boxes' own float32 numbers: a distance may lie at the threshold.
        mine = [b.centre[b.label == label, :2].astype(float).tolist() for b in labels]
        number = sum(map(len, mine))
        assert result.labels[label] == number
        guesses = [
            [(*c, float(s)) for c, s in zip(b.centre[:, :2].astype(float), b.score, strict=True)]
            for b in (b[b.label == label] for b in found)
        ]
        for column, distance in enumerate(DISTANCES):
            value = result.table[label, column]
            if number:
                assert value == pytest.approx(slow_average(guesses, mine, distance), abs=1e-9)
            else:
                assert np.isnan(value)


def test_perfect_detections_have_ap_1_and_none_have_0() -> None:
    labels = [boxes([(5, 5, 0, 1), (9, 5, 0, 1), (0, 20, 3, 1)])]
    perfect = average_precision(labels, labels)
    assert perfect.mean == pytest.approx(1.0) and (perfect.labels == [2, 0, 0, 1, 0]).all()
    assert average_precision([Boxes.none()], labels).mean == 0.0
    wrong = [boxes([(5, 5, 1, 1), (9, 5, 1, 1), (0, 20, 0, 1)])]
    assert average_precision(wrong, labels).mean == 0.0, "the class counts"


def test_a_label_is_found_once() -> None:
    labels = [boxes([(5, 5, 0, 1), (30, 30, 0, 1)])]
    twice = [boxes([(5, 5, 0, 0.9), (5.1, 5, 0, 0.8), (30, 30, 0, 0.7)])]
    once = [boxes([(5, 5, 0, 0.9), (30, 30, 0, 0.7)])]
    assert average_precision(twice, labels).mean < average_precision(once, labels).mean == pytest.approx(1.0)


def test_what_is_far_or_hardly_seen_does_not_count() -> None:
    labels = [boxes([(5, 5, 3, 1), (0, RANGES["pedestrian"] + 1, 3, 1)])]
    found = [boxes([(5, 5, 3, 0.5), (0, RANGES["pedestrian"] + 1, 3, 0.9), (41, 0, 3, 0.9)])]
    result = average_precision(found, labels)
    assert result.mean == pytest.approx(1.0) and result.labels[3] == 1
    unseen = [boxes([(5, 5, 3, 1)], points=4)]
    assert average_precision(found, unseen).labels[3] == 0
    assert average_precision(found, unseen, min_points=4).labels[3] == 1


def test_tables_and_json() -> None:
    labels = [boxes([(5, 5, 0, 1)])]
    result = average_precision(labels, labels)
    text = str(result)
    assert "100.00" in text and all(name in text for name in CLASSES)
    plain = result.to_dict()
    assert plain["mean_ap"] == pytest.approx(1.0) and plain["classes"]["van"]["ap"] is None
    assert average_precision([Boxes.none()], [Boxes.none()]).to_dict()["mean_ap"] is None


def test_frames_must_be_the_same() -> None:
    for found, labels in (([], []), ([Boxes.none()], [Boxes.none()] * 2)):
        with pytest.raises(ArgumentError, match="detections and labels of the same frames"):
            average_precision(found, labels)
