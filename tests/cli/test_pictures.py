# SPDX-License-Identifier: Apache-2.0
"""Bird's-eye views: images against loops, scales, and `--picture` of run and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scn_fx.cli.bev import BevScale, bev_image, pooled
from scn_fx.cli.picture import Panel, compared_panels, map_extent, save_panels
from scn_fx.errors import ArgumentError, CompareError
from scn_fx.lidar import CENTERPOINT_GRID, NetworkGrid
from tests.cli.conftest import MODEL, invoke, invoke_json

Files = dict[str, Path]
PNG = b"\x89PNG"


def sparse(seed: int = 0, batch: int = 1) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    sites = rng.permutation(batch * 3 * 5 * 7)[:40]
    indices = np.stack(np.unravel_index(sites, (batch, 3, 5, 7)), 1).astype(np.int32)
    return rng.normal(size=(40, 6)).astype(np.float16), indices


def looped(features: Any, indices: Any, shape: tuple[int, int], y: int, x: int) -> Any:
    image = np.zeros(shape, np.float32)
    for row, site in zip(features, indices, strict=True):
        if site[0] == 0:
            place = site[y], site[x]
            image[place] = max(image[place], float(np.abs(row).max()))
    return image


@pytest.mark.parametrize("batch", [1, 2])
def test_a_sparse_result_is_seen_from_above(batch: int) -> None:
    features, indices = sparse(batch=batch)
    found = bev_image((features, indices), shape=(5, 7))
    np.testing.assert_array_equal(found, looped(features, indices, (5, 7), 2, 3))
    turned = indices[:, [0, 3, 2, 1]]
    np.testing.assert_array_equal(bev_image((features, turned), "xyz", (5, 7)), found)
    flat = indices[indices[:, 1] == 0], features[indices[:, 1] == 0]
    pillars = bev_image((flat[1], flat[0][:, [0, 2, 3]]), shape=(5, 7))
    np.testing.assert_array_equal(pillars, looped(flat[1], flat[0], (5, 7), 2, 3))
    mine = indices[indices[:, 0] == 0]
    assert bev_image((features, indices)).shape == (mine[:, 2].max() + 1, mine[:, 3].max() + 1)


def test_a_dense_map_is_seen_from_above() -> None:
    dense = np.random.default_rng(1).normal(size=(2, 3, 4, 5, 6)).astype(np.float16)
    wanted = [[max(abs(float(v)) for v in dense[0, :, :, y, x].ravel()) for x in range(6)] for y in range(5)]
    np.testing.assert_array_equal(bev_image(dense), np.array(wanted, np.float32))


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (np.zeros((1, 8)), "got an output of shape [1, 8]"),
        ((np.zeros((3, 2)), np.zeros((3, 2), np.int32)), "one dimension has no bird's-eye view"),
        ((np.zeros((1, 2)), np.array([[0, 0, 99_999, 99_999]], np.int32)), "span 100,000 x 100,000 cells"),
    ],
)
def test_what_has_no_view_is_refused(result: Any, words: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        bev_image(result)
    assert words in str(caught.value) and "eave the picture out" in str(caught.value)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12))
def test_pooling_takes_the_largest_of_each_block(height: int, width: int, most: int) -> None:
    image = np.random.default_rng(height * 31 + width).random((height, width)).astype(np.float32)
    found, factor = pooled(image, most)
    assert max(found.shape) <= most and (factor == 1) == (max(height, width) <= most)
    for y, x in np.ndindex(*found.shape):
        block = image[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        assert found[y, x] == block.max()


def test_the_scale_says_what_it_clips() -> None:
    image = np.zeros((20, 20), np.float32)
    image.flat[:200] = np.arange(1, 201)
    scale = BevScale.of(image)
    assert scale.top == pytest.approx(np.percentile(np.arange(1, 201), 99.5))
    assert "from 0 to 199" in scale.text and "clipped" in scale.text
    assert scale.clipped(image) == "largest 200, 0.50% of 200 occupied cells clipped"
    levels = scale.levels(image)
    assert levels.max() == 1.0 and levels.flat[49] == pytest.approx(np.sqrt(50 / scale.top))
    assert BevScale.of(np.zeros((2, 2), np.float32)).top == 1.0


def test_panels_of_two_results_match_rows_by_site() -> None:
    features, indices = sparse()
    order = np.random.default_rng(3).permutation(len(features))
    other = features.copy()
    other[0, 0] += 1
    panels = compared_panels((features, indices), (other[order], indices[order]), ("a", "b"))
    assert [panel.name for panel in panels] == ["a", "b", "|difference|"]
    assert np.count_nonzero(panels[2].image) == 1 and panels[2].image.max() == pytest.approx(1, abs=1e-2)
    with pytest.raises(CompareError, match="One of the two is sparse"):
        compared_panels((features, indices), np.zeros((1, 1, 5, 7)), ("a", "b"))
    with pytest.raises(CompareError, match="two maps of one shape"):
        compared_panels(np.zeros((1, 1, 5, 7)), np.zeros((1, 1, 5, 8)), ("a", "b"))


def test_metres_are_known_for_dense_maps_of_a_known_grid_alone() -> None:
    known = NetworkGrid("the file", CENTERPOINT_GRID)
    dense = np.zeros((1, 1, 2, 2))
    assert map_extent(dense, known) == (-54.0, 54.0, -54.0, 54.0)
    assert map_extent(sparse(), known) is None and map_extent(dense, NetworkGrid("the file")) is None
    assert map_extent(dense, NetworkGrid("the file", CENTERPOINT_GRID, axes="xyz")) is None


def test_an_svg_says_its_scale_and_is_the_same_each_time(tmp_path: Path) -> None:
    panel = Panel(r"a $\nonsense$ as it is", bev_image(sparse()))
    for name in ("one.svg", "two.svg"):
        save_panels(tmp_path / name, [panel], "title_$")
    one, two = ((tmp_path / name).read_text() for name in ("one.svg", "two.svg"))
    assert one == two and "<svg" in one
    assert r"a $\nonsense$ as it is" in one and "colours by the square root" in one and "cells clipped" in one


@pytest.mark.parametrize("name", ["run.png", "run.svg"])
def test_run_draws_its_first_output(files: Files, tmp_path: Path, name: str) -> None:
    frame = ("--features", files["features"], "--indices", files["indices"])
    facts = invoke_json("run", files["int8"], *frame, "--picture", tmp_path / name)
    assert facts["saved"] == [str(tmp_path / name)]
    content = (tmp_path / name).read_bytes()
    assert content.startswith(PNG) if name.endswith("png") else b"precisions of the file" in content


def test_compare_draws_both_sides_and_the_difference(files: Files, tmp_path: Path) -> None:
    model = ("--model", MODEL, "--cache", files["cache"], "--frames", files["frames"])
    text = invoke("compare", files["int8"], *model, "--picture", tmp_path / "model.svg").output
    assert f"saved {tmp_path / 'model.svg'}" in text
    content = (tmp_path / "model.svg").read_text()
    assert all(name in content for name in ("<!-- graph", "<!-- engine", "<!-- |difference|", "largest 0,"))
    frame = ("--features", files["features"], "--indices", files["indices"])
    for name, more in (("a.npz", ()), ("b.npz", ("--precision", "fp32"))):
        invoke("run", files["int8"], *frame, *more, "-o", tmp_path / name)
    results = (tmp_path / "b.npz", tmp_path / "a.npz", "--cosine", 0.9)
    facts = invoke_json("compare", *results, "--picture", tmp_path / "files.png")
    assert facts["picture"] == str(tmp_path / "files.png")
    assert (tmp_path / "files.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    "command", [("run", "none.onnx"), ("compare", "a.npz", "b.npz"), ("report", "x.onnx")]
)
def test_pictures_are_checked_before_the_work(command: tuple[str, ...], tmp_path: Path) -> None:
    option = "--output" if command[0] == "report" else "--picture"
    missing = invoke(*command, option, tmp_path / "no" / "a.png", code=1).stderr
    assert missing.startswith(f"Error: {option} ") and "no" in missing
    if option == "--picture":
        wrong = invoke(*command, option, tmp_path / "a.jpg", code=1).stderr
        assert "--picture must end in .png or .svg, got" in wrong
