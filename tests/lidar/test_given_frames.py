# SPDX-License-Identifier: Apache-2.0
"""Frames of a user's own code: lists, data sets, generators, points; several passes; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from scn_fx.errors import GridError, LidarError
from scn_fx.lidar import NetworkGrid, VoxelGrid
from scn_fx.lidar.given_frames import FrameSequence, FrameStream, given_frames, names_frames
from tests.lidar import given
from tests.quant.graphs import frame

GRID = VoxelGrid((0, 0, 0, 4, 4, 4), (1, 1, 1))


def path(name: str) -> str:
    return f"tests.lidar.given:{name}"


def features(frames: object) -> list[float]:
    return [float(pair[0].sum()) for pair in frames]  # type: ignore[attr-defined]


def test_what_has_an_index_is_spread_and_read_when_asked_for() -> None:
    given.data_set.read.clear()
    found = given_frames(path("data_set"), limit=4)
    assert isinstance(found, FrameSequence) and len(found) == 4 and given.data_set.read == []
    assert features(found) == features([frame(seed) for seed in (0, 3, 6, 9)])
    assert given.data_set.read == [0, 3, 6, 9]
    assert float(found.spread(2)[1][0].sum()) == features([frame(9)])[0]


@pytest.mark.parametrize("name", ["generator", "loader"])
def test_streams_give_all_frames_at_each_pass(name: str) -> None:
    found = given_frames(path(name))
    assert isinstance(found, FrameStream)
    expected = features([frame(seed) for seed in range(10 if name == "loader" else 4)])
    assert [features(found), features(found)] == [expected, expected]
    few = given_frames(path(name), limit=3).spread(2)
    assert features(few) == expected[:2], "how many there are is not known: the first"
    assert features(given_frames(path(name), limit=1).spread(2)) == expected[:1]


def test_points_are_voxelised_in_the_networks_grid() -> None:
    first, second = given_frames(path("points")).for_network(NetworkGrid("the graph", GRID, axes="xyz"), None)
    assert first[1].tolist() == [[0, 0, 1, 2]] and np.allclose(first[0], [[0.6, 1.55, 2.45, 10]], atol=0.01)
    assert second[1].tolist() == [[0, 3, 1, 0]]
    with pytest.raises(GridError, match="Points need a voxel grid"):
        list(given_frames(path("points")))
    coarse = VoxelGrid(GRID.point_range, (2, 2, 2))
    with pytest.raises(GridError, match="is the grid"):
        given_frames(path("points")).for_network(NetworkGrid("the graph", GRID), coarse)


def test_an_iterator_serves_one_pass() -> None:
    found = given_frames(path("once"))
    assert len(list(found)) == 2
    with pytest.raises(LidarError, match="given:once is an iterator, which gives its frames once"):
        list(found)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("gone", "The source of frames 'tests.lidar.given:gone' cannot be imported: .*no attribute"),
        ("NUMBER", "NUMBER: expected an iterable of frames.*got int"),
        ("WRONG", r"WRONG, frame 0 \(counted from 0\): expected \(features, indices\), or points.*\[3\]"),
    ],
)
def test_what_gives_no_frames(name: str, match: str) -> None:
    with pytest.raises(LidarError, match=match):
        list(given_frames(path(name)))
    with pytest.raises(LidarError, match="at least 1"):
        given_frames(path("pairs"), limit=0)


def test_errors_of_the_users_code_stay_as_they_are() -> None:
    with pytest.raises(KeyError, match="lidar_path"):
        list(given_frames(path("broken")))


def test_names_of_code_and_names_of_files(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # type: ignore[arg-type]
    assert names_frames("mine.frames:key_frames") and names_frames("a:b.c")
    assert not any(map(names_frames, ("sweeps", "a/b:c", "a:", "3a:b", "a.npz:0")))
    open("mine:frames", "wb").close()
    assert not names_frames("mine:frames"), "a file of that name comes first"
