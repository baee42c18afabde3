# SPDX-License-Identifier: Apache-2.0
"""The tables of accuracy: the octree against a direct one, and each table on a small case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scn_fx.detection
from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.codec_table import CodecResult, codec_table
from benchmarks.accuracy.detector_table import detector_results, detector_table
from benchmarks.accuracy.methods import VARIANTS, choose, merged, quantised, statistics_of
from benchmarks.accuracy.octree import octree
from benchmarks.accuracy.reno import TRUNKS, Codec
from benchmarks.accuracy.tables import markdown, sqnr
from scn_fx.detection.scenes import HELD_OUT_SEED
from scn_fx.errors import ArgumentError
from scn_fx.quant.ranges import quantizable


def _points(count: int = 3000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((count, 3)) * [40, 40, 4]).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under the names of a RENO checkpoint."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=generator)

    weights = {"prior_embedding.weight": normal(256, 32)}
    weights["target_embedding.target_res_embedding.weight"] = normal(8, 32)
    for trunk in TRUNKS:
        for key in ("0", "2.conv0", "2.conv1", "3.conv0", "3.conv1"):
            weights[f"{trunk}_resnet.{key}.kernel"] = normal(27, 32, 32, scale=0.08)
    for head in ("pred_head_s0", "pred_head_s1"):
        weights |= {f"{head}.0.weight": normal(32, 32, scale=0.1), f"{head}.0.bias": normal(32)}
        weights |= {f"{head}.2.weight": normal(16, 32, scale=0.1), f"{head}.2.bias": normal(16)}
    weights["pred_head_s1_emb.weight"] = normal(16, 32)
    path = tmp_path_factory.mktemp("reno") / "random.ckpt.pt"
    torch.save(weights, path)
    return path


def test_the_octree_holds_every_cell_at_every_level() -> None:
    points = _points()
    tree = octree(points, 500.0)
    cells = {tuple(c) for c in np.round((points.astype(np.float64) / 0.001 + 131072) / 500.0).astype(int)}
    levels = [cells]
    while len(levels[-1]) >= 64:
        levels.append({tuple(v >> 1 for v in cell) for cell in levels[-1]})
    coarse_to_fine = levels[:0:-1]
    counts = np.bincount(tree.indices[:, 0].numpy()).tolist()
    assert counts == [len(level) for level in coarse_to_fine]
    # Codes of a level count the cells of the next; a child's bit is set in its parent's code.
    bits = np.array([bin(int(code)).count("1") for code in tree.codes])
    for level, below in enumerate([*coarse_to_fine[1:], cells]):
        assert bits[(tree.indices[:, 0] == level).numpy()].sum() == len(below)
    assert (((tree.codes[tree.parents] >> tree.children) & 1) == 1).all()
    at = tree.indices[tree.coded].long()
    origin = at - 2 * tree.indices[tree.parents].long()
    step = torch.stack([tree.children >> 2 & 1, tree.children >> 1 & 1, tree.children & 1], 1)
    offset = origin[:, 1:] - step
    assert all(
        (offset[at[:, 0] == level] == offset[at[:, 0] == level][0]).all() for level in at[:, 0].unique()
    )


def test_every_variant_quantises_a_trunk(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.accuracy.methods._TRAINING", {"steps": 2, "lr": 1e-5})
    tree = octree(_points(1500), 1000.0)
    codec = Codec(checkpoint)
    graphs = codec.graphs(tree.spatial_shape, tree.batch_size)
    bits, prior, target = codec.run(tree, graphs["prior"], graphs["target"])
    assert bits > 0
    assert target.shape == (len(tree.coded), 32)
    graph, frame = graphs["prior"], codec.prior_frame(tree)
    statistics = merged(graph, [statistics_of(graph, frame)])
    for variant in VARIANTS:
        made = quantised(graph, statistics, [frame], variant)
        assert [layer.precision for layer in quantizable(made)].count("int8") == 6, variant
        with torch.no_grad():
            assert sqnr(prior, made(*frame)[0].float()) > 20, variant
    assert all(layer.precision == "fp32" for layer in quantizable(graph))


def test_tables_and_names() -> None:
    found = [
        CodecResult("k", "mse", sweep, "all others", added, {"prior": 30.0 + added, "target": 29.0})
        for sweep, added in (("a", 0.1), ("b", 0.3))
    ]
    assert "| k, mse | +0.200 | +0.300 | 30.2 (30.1) | 29.0 (29.0) |" in codec_table(found)
    assert markdown(("a", "b"), [("c", "1")]).splitlines() == ["| a | b |", "| --- | ---: |", "| c | 1 |"]
    assert sqnr(torch.tensor([10.0]), torch.tensor([9.0])) == pytest.approx(20.0)
    with pytest.raises(ArgumentError, match="no variant 'best'; there are: max, plain"):
        choose(["best"])


def test_the_detector_is_measured_on_the_scenes_until_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = scn_fx.detection.held_out_frames
    allowed = [1]

    def interrupted(count: int, **options: Any) -> Iterator[Any]:
        if options.get("first", 0) >= 2 * HELD_OUT_SEED:
            yield from scenes(count, **options)  # to calibrate on
            return
        if allowed[0]:
            yield from scenes(allowed[0], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr("scn_fx.detection.held_out_frames", interrupted)
    exact, int8 = detector_results(choose(["max"]), scenes=9, frames=1, sets=1)
    assert (exact.variant, exact.scenes, int8.variant, int8.scenes) == ("float32", 1, "max", 1)
    assert np.isinf(exact.sqnr) and 15 < int8.sqnr < 40
    assert "| float32, 1 scenes |" in detector_table([exact, int8])
    allowed[0] = 0
    with pytest.raises(KeyboardInterrupt):
        detector_results(choose(["max"]), scenes=9, frames=1, sets=1)


def test_without_data_the_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("SCN_FX_DATA", raising=False)
    assert main(["codec", "--method", "mse"]) == 1
    assert "SCN_FX_DATA" in capsys.readouterr().err
    monkeypatch.setenv("SCN_FX_DATA", str(tmp_path))
    assert main(["sensors", "--method", "mse"]) == 1
    assert "is no folder" in capsys.readouterr().err
