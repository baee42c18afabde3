# SPDX-License-Identifier: Apache-2.0
"""Runs the recipes over a folder of checkouts."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.models.eager import take_statistics
from benchmarks.models.originals import det3d, mmdet3d, openpcdet, segmentation
from benchmarks.models.originals.checkout import folder_of, opened
from benchmarks.models.originals.network import Case, Network
from benchmarks.models.stages import Result, first_line, run_stages
from scn_fx.exporting import quiet

__all__ = ["NETWORKS", "original_results"]

NETWORKS: tuple[Network, ...] = (
    *det3d.NETWORKS, *openpcdet.NETWORKS, *mmdet3d.NETWORKS, *segmentation.NETWORKS
)  # fmt: skip


def original_results(
    folder: Path, only: tuple[str, ...] = (), *, voxels: int = 500, cuda: bool = False
) -> Iterator[Result]:
    """A result for each published network and output, as they come.

    A network whose checkout is missing, or that cannot be built, gives one result that says so.

    Args:
        folder: holds checkouts as ``<owner>+<name>``.
        only: keys of networks; all if empty.
        voxels: about how many the frames have.
        cuda: whether to run the engine on a GPU as well.
    """
    for network in NETWORKS:
        if only and network.key not in only:
            continue
        missing = [r for r in (network.repository, *network.also) if not folder_of(folder, r).is_dir()]
        if missing:
            yield Result(network.title, None, {}, "checkout", f"not there: {', '.join(missing)}")
            continue
        repositories = network.repository, *network.also
        with opened(folder, repositories, network.roots, network.aliases, voxels) as checkout:
            try:
                case = _built(network, checkout)
            except Exception as error:
                yield Result(network.title, None, {}, "build", first_line(error))
                continue
            for output in network.outputs:
                options = {"kwargs": case.kwargs, "options": network.options, "cuda": cuda}
                options["frame"] = case.frame
                result = run_stages(network.title, case.model, case.args, output, **options)
                result.outside = network.reason(output)
                yield result


def _built(network: Network, checkout: object) -> Case:
    """The model with seeded weights and the statistics of its frame; what it prints is dropped."""
    torch.manual_seed(0)
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        case = network.build(checkout)  # type: ignore[arg-type]
        case.model.eval()
        take_statistics(case.model, case.args, case.kwargs, network.options)
    return case
