# SPDX-License-Identifier: Apache-2.0
"""Interrupted calibrations go on where they ended; caches give other ranges without frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import quant
from scn_fx.errors import CalibrationError, CalibrationWarning, NonFiniteError
from scn_fx.graph import fingerprint, layers
from scn_fx.quant.changes import set_bias, set_weight
from scn_fx.quant.encoding import decoded, encoded
from tests.quant.graphs import GraphBuilder, frame, residual

FRAMES = [frame(seed) for seed in range(7)]
WHOLE = quant.calibrate(residual(), FRAMES, method="entropy")


def interrupted_after(count: int, frames: list[Any] = FRAMES) -> Iterator[Any]:
    yield from frames[:count]
    raise KeyboardInterrupt


@pytest.mark.parametrize("count", [2, 3, 5])
def test_ctrl_c_loses_nothing_that_was_counted(tmp_path: Path, count: int) -> None:
    cache = tmp_path / "c.json"
    graph = residual()
    with pytest.raises(KeyboardInterrupt):
        quant.calibrate(graph, interrupted_after(count), cache=cache)
    assert graph.meta["scn_fx"]["calibration"] is None and not cache.exists()
    ran: list[int] = []

    class Counting(list):  # type: ignore[type-arg]
        def __getitem__(self, number: Any) -> Any:
            ran.append(number)
            return super().__getitem__(number)

    result = quant.calibrate(graph, Counting(FRAMES), method="entropy", cache=cache, resume=True)
    assert (result.ranges, result.frames, result.largest) == (WHOLE.ranges, 7, WHOLE.largest)
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]
    # Fewer than three frames are all held back; of more, the first and the last one are read to compare.
    assert len(ran) <= 7 - count + 2 or count < 3
    # A finished cache goes on as well.
    again = quant.calibrate(residual(), iter([*FRAMES, frame(9)]), method="entropy", cache=cache, resume=True)
    assert again.frames == 8
    assert again.ranges == quant.calibrate(residual(), [*FRAMES, frame(9)], method="entropy").ranges


def test_a_frame_that_fails_keeps_the_others(tmp_path: Path) -> None:
    cache = tmp_path / "c.json"
    bad = (torch.full((5, 3), torch.nan), FRAMES[0][1][:5])
    with pytest.raises(NonFiniteError, match=r"Frame 4 .*The 4 frames .* kept in .*c\.json\.part.*--resume"):
        quant.calibrate(residual(), [*FRAMES[:4], bad], cache=cache)
    with pytest.raises(CalibrationError, match=r"not finished \(after 4 frames\)"):
        quant.load_cache(residual(), cache.with_name("c.json.part"))
    assert (
        quant.calibrate(residual(), FRAMES, method="entropy", cache=cache, resume=True).ranges == WHOLE.ranges
    )


def test_an_error_leaves_an_earlier_cache_alone(tmp_path: Path) -> None:
    cache = tmp_path / "c.json"
    quant.calibrate(residual(), FRAMES[:2], cache=cache)
    before = cache.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        quant.calibrate(residual(), interrupted_after(5), cache=cache)
    assert cache.read_bytes() == before


def test_a_held_frame_is_read_again(tmp_path: Path) -> None:
    odd = (FRAMES[2][0] * 100, FRAMES[2][1])
    frames = [*FRAMES[:2], odd, *FRAMES[3:]]
    cache = tmp_path / "c.json"
    with pytest.raises(KeyboardInterrupt):
        quant.calibrate(residual(), interrupted_after(5, frames), cache=cache)
    with pytest.warns(CalibrationWarning, match="Frame 2.*left out"):
        result = quant.calibrate(residual(), frames, method="entropy", cache=cache, resume=True)
    with pytest.warns(CalibrationWarning, match="Frame 2.*left out"):
        expected = quant.calibrate(residual(), frames, method="entropy")
    assert (result.ranges, result.frames) == (expected.ranges, 6)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    cache = tmp_path / "c.json"
    with pytest.raises(KeyboardInterrupt):
        quant.calibrate(residual(), interrupted_after(5), cache=cache)
    return cache


def test_other_frames_graphs_and_options_are_refused(part: Path) -> None:
    before = part.with_name("c.json.part").read_bytes()
    refusals = [
        (residual(), [*FRAMES[1:]], {}, r"Frame 0 .* is not the one that .*c\.json\.part"),
        (residual(), FRAMES[:3], {}, "has counted frame 4 .* the frames end at 2"),
        (residual(1), FRAMES, {}, "belongs to another graph"),
        (residual(), FRAMES, {"num_bins": 512}, "num_bins=2048.*this calibration has num_bins=512"),
        (residual(), FRAMES, {"outliers": "keep"}, "outliers='drop'.*outliers='keep'"),
    ]
    for graph, frames, options, match in refusals:
        with pytest.raises(CalibrationError, match=match):
            quant.calibrate(graph, frames, cache=part, resume=True, **options)
    graph = residual()
    set_bias(next(iter(layers(graph))), torch.zeros(4))
    with pytest.raises(CalibrationError, match="histograms of other weights"):
        quant.calibrate(graph, FRAMES, cache=part, resume=True)
    after = json.loads(part.with_name("c.json.part").read_bytes())
    assert after == json.loads(before)
    with pytest.raises(CalibrationError, match="name it with cache="):
        quant.calibrate(residual(), FRAMES, resume=True)


@pytest.mark.parametrize(
    "where", [("statistics", "values"), ("variety", "cells"), ("screen", "read"), ("digests",)]
)
def test_damaged_states_are_refused(part: Path, where: tuple[str, ...]) -> None:
    path = part.with_name("c.json.part")
    content = json.loads(path.read_text())
    inner = content["state"]
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = {"x": {"dtype": "int64", "shape": [3], "zlib": "AAAA"}}
    path.write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match="damaged"):
        quant.calibrate(residual(), FRAMES, cache=part, resume=True)


def test_other_methods_need_no_frames(tmp_path: Path) -> None:
    cache, other = tmp_path / "c.json", tmp_path / "other.json"
    quant.calibrate(residual(), FRAMES, cache=cache)
    graph = residual()
    result = quant.reselect(graph, cache, method="entropy", output=other)
    assert (result.ranges, result.frames) == (WHOLE.ranges, 7)
    assert graph.meta["scn_fx"]["calibration"] == {"method": "entropy", "frames": 7}
    fresh = residual()
    quant.load_cache(fresh, other)
    assert torch.equal(fresh(*FRAMES[0]), graph(*FRAMES[0]))
    quant.save_cache(graph, cache)
    with pytest.raises(CalibrationError, match="no histograms"):
        quant.reselect(residual(), cache)
    with pytest.raises(CalibrationError, match="Unknown calibration method"):
        quant.reselect(residual(), other, method="none")


def test_an_old_cache_loads(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    graph = residual()
    quant.calibrate(graph, FRAMES)
    quant.save_cache(graph, path)
    content = json.loads(path.read_text())
    del content["changes"]
    path.write_text(json.dumps({**content, "version": 1}))
    fresh = residual()
    assert quant.load_cache(fresh, path)["frames"] == 7
    assert torch.equal(fresh(*FRAMES[0]), graph(*FRAMES[0]))


def changed() -> torch.fx.GraphModule:
    """A graph with a new weight, and a bias where there was none."""
    graph = without_bias()
    by_name = {layer.name: layer for layer in layers(graph)}
    set_weight(by_name["a"], by_name["a"].weight * 1.25)
    set_bias(by_name["b"], torch.arange(4) / 4.0)
    return graph


def without_bias() -> torch.fx.GraphModule:
    build = GraphBuilder()
    x = build.conv(build.features, "a", (3, 4))
    y = build.conv(x, "b", (4, 4))
    bias = y.args[2]
    y.update_arg(2, None)
    build.graph.erase_node(bias)
    return build.finish(build.dense(y))


def test_changed_weights_travel_in_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    graph = changed()
    quant.calibrate(graph, FRAMES, cache=path)
    fresh = without_bias()
    quant.load_cache(fresh, path)
    assert fingerprint(fresh) != fingerprint(without_bias())
    assert torch.equal(fresh(*FRAMES[0]), graph(*FRAMES[0]))
    quant.load_cache(fresh, path)  # once more changes nothing
    assert torch.equal(fresh(*FRAMES[0]), graph(*FRAMES[0]))
    assert quant.reselect(fresh, path, method="max").frames == 7
    plain = tmp_path / "plain.json"
    quant.calibrate(without_bias(), FRAMES, cache=plain)
    with pytest.raises(CalibrationError, match=r"original weights of a, b.*Capture the model anew"):
        quant.load_cache(fresh, plain)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        ({"c": {}}, "not those of this graph"),
        ({"a": {"weight": None, "bias": None}}, "weight of a"),
        (
            {"a": {"weight": encoded(np.ones(3, np.float16)), "bias": None}},
            r"weight of a must be .*got .*\[3\]",
        ),
        ({"b": {}}, "weight of b"),
    ],
)
def test_damaged_changes_are_refused(tmp_path: Path, damage: dict[str, Any], match: str) -> None:
    path = tmp_path / "c.json"
    quant.calibrate(changed(), FRAMES, cache=path)
    content = json.loads(path.read_text())
    content["changes"] |= damage
    path.write_text(json.dumps(content))
    graph = without_bias()
    before = fingerprint(graph)
    with pytest.raises(CalibrationError, match=match):
        quant.load_cache(graph, path)
    assert fingerprint(graph) == before


def test_arrays_survive_and_damaged_ones_do_not() -> None:
    for array in (np.arange(12).reshape(3, 4), np.array([1.5, -2], np.float16), np.zeros((0, 3), np.uint8)):
        again = decoded(encoded(array))
        assert again.dtype == array.dtype and np.array_equal(again, array)
    good = encoded(np.arange(3))
    for damage in (
        {"shape": [4]}, {"shape": [2]}, {"shape": [-1]}, {"shape": [1 << 40]}, {"dtype": "object"},
        {"zlib": "!"}, {"zlib": good["zlib"][:8]}, {"zlib": 3}, {"more": 1},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="array"):
            decoded({**good, **damage})
