# SPDX-License-Identifier: Apache-2.0
"""RENO's trained trunks in int8: added bits and SQNR, each sweep with ranges from all other sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from benchmarks.accuracy.data import data_folder, sweeps
from benchmarks.accuracy.methods import Variant, merged, quantised, statistics_of
from benchmarks.accuracy.octree import Octree, octree
from benchmarks.accuracy.reno import TRUNKS, Codec
from benchmarks.accuracy.tables import markdown, sqnr

__all__ = ["CodecResult", "codec_results", "codec_table"]


@dataclass(frozen=True)
class CodecResult:
    """What one variant costs on one sweep."""

    checkpoint: str
    variant: str
    sweep: str
    calibrated_on: str
    added_percent: float
    """Bits beyond those of float32, in percent of these."""
    sqnr: dict[str, float]
    """By trunk, in decibels, with the float network's inputs."""


def codec_results(
    variants: Sequence[Variant],
    *,
    calibrate_on: str | None = None,
    cell_mm: float = 64.0,
    device: str = "cpu",
) -> list[CodecResult]:
    """All variants on all checkpoints and sweeps of SCN_FX_DATA.

    Ranges come from all other sweeps, or from the one named `calibrate_on` for all others.
    """
    trees = {
        name: octree(points[:, :3], cell_mm).to(device) for name, points in sweeps(data_folder("frames"))
    }
    found = []
    for checkpoint in sorted(data_folder("reno").glob("*.pt")):
        found += _of_checkpoint(Codec(checkpoint, device), checkpoint.name, trees, variants, calibrate_on)
    return found


def _of_checkpoint(
    codec: Codec,
    checkpoint: str,
    trees: dict[str, Octree],
    variants: Sequence[Variant],
    calibrate_on: str | None,
) -> list[CodecResult]:
    shape = np.max([tree.spatial_shape for tree in trees.values()], axis=0).tolist()
    graphs = codec.graphs(shape, max(tree.batch_size for tree in trees.values()))
    frames = {trunk: {} for trunk in TRUNKS}  # type: dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]]
    reference: dict[str, tuple[float, torch.Tensor, torch.Tensor]] = {}
    statistics = {trunk: {} for trunk in TRUNKS}  # type: dict[str, dict[str, object]]
    for name, tree in trees.items():
        bits, prior, target = codec.run(tree, graphs["prior"], graphs["target"])
        reference[name] = bits, prior, target
        frames["prior"][name] = codec.prior_frame(tree)
        frames["target"][name] = codec.target_frame(tree, prior)
        for trunk in TRUNKS:
            statistics[trunk][name] = statistics_of(graphs[trunk], frames[trunk][name])
    sets = [[n for n in trees if n != name] for name in trees] if calibrate_on is None else [[calibrate_on]]
    found = []
    for variant in variants:
        for used in sets:
            made = {
                trunk: quantised(
                    graphs[trunk],
                    merged(graphs[trunk], [statistics[trunk][n] for n in used]),  # type: ignore[misc]
                    [frames[trunk][n] for n in used],
                    variant,
                )
                for trunk in TRUNKS
            }
            for name in (n for n in trees if n not in used):
                bits, prior, _ = codec.run(trees[name], made["prior"], made["target"])
                with torch.no_grad():
                    target = made["target"](*frames["target"][name])[0].float()
                quality = {
                    "prior": sqnr(reference[name][1], prior),
                    "target": sqnr(reference[name][2], target),
                }
                found.append(
                    CodecResult(
                        checkpoint.partition(".")[0],
                        variant.name,
                        name,
                        "all others" if calibrate_on is None else calibrate_on,
                        100 * (bits / reference[name][0] - 1),
                        quality,
                    )
                )
    return found


def codec_table(found: Sequence[CodecResult]) -> str:
    """Mean and largest added bits, and SQNR, by checkpoint and variant."""
    rows = []
    for checkpoint, variant in dict.fromkeys((r.checkpoint, r.variant) for r in found):
        mine = [r for r in found if (r.checkpoint, r.variant) == (checkpoint, variant)]
        added = [r.added_percent for r in mine]
        quality = [
            f"{np.mean([r.sqnr[t] for r in mine]):.1f} ({min(r.sqnr[t] for r in mine):.1f})" for t in TRUNKS
        ]
        rows.append([f"{checkpoint}, {variant}", f"{np.mean(added):+.3f}", f"{max(added):+.3f}", *quality])
    head = ("checkpoint, method", "added bits %", "worst sweep %", "prior dB (worst)", "target dB (worst)")
    return markdown(head, rows)


def as_json(found: Sequence[CodecResult]) -> list[dict[str, object]]:
    """Plain data."""
    return [asdict(result) for result in found]
