# SPDX-License-Identifier: Apache-2.0
"""Detect and evaluate with any encoder: a float graph, an int8 graph, the engine, or the spconv module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import torch

from scn_fx.detection.ap import AveragePrecision, average_precision
from scn_fx.detection.decode import decode
from scn_fx.detection.head import BevHead
from scn_fx.detection.scenes import LabelledFrame
from scn_fx.errors import ArgumentError
from scn_fx.lidar.boxes import Boxes
from scn_fx.lidar.grids import CENTERPOINT_GRID, VoxelGrid
from scn_fx.peers import Peers

__all__ = ["EncoderFunction", "detect", "encoder_function", "evaluate"]

EncoderFunction = Callable[[Any, Any], Any]
"""Features [N, C] and indices [N, 4] of one frame to the dense map [1, C', H, W]; a torch tensor or a NumPy
array. Captured graphs and `scn_fx.Engine` are such functions."""


def encoder_function(encoder: torch.nn.Module) -> EncoderFunction:
    """The spconv encoder itself as such a function, computed by the operators of scn-fx in float32."""
    from scn_fx.capture import run_with_own_operators

    def run(features: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        made = run_with_own_operators(encoder, *encoder.arguments(features.float(), indices))  # type: ignore[operator]
        return made[0] if isinstance(made, tuple) else made

    return run


@contextmanager
def _repeatable() -> Iterator[None]:
    """Within: no TF32, and no choice of algorithms by timing; results depend on the inputs alone."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, False, False, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


@torch.no_grad()
def detect(
    encoder: EncoderFunction,
    head: BevHead,
    features: Any,
    indices: Any,
    *,
    grid: VoxelGrid = CENTERPOINT_GRID,
) -> Boxes:
    """The boxes in one frame.

    Equal dense maps give equal boxes, bit for bit, on one machine: the head runs in float32 with repeatable
    algorithms, on the device of its weights. Raises ArgumentError for a head in training mode, or a dense map
    that it does not take.
    """
    if head.training:
        raise ArgumentError("The head is in training mode: call head.eval() first.")
    weight = next(head.parameters())
    with _repeatable(), torch.autocast(weight.device.type, enabled=False):
        return _detect(encoder(features, indices), head, weight.device, grid)


def _detect(made: Any, head: BevHead, device: torch.device, grid: VoxelGrid) -> Boxes:
    dense = torch.as_tensor(made).to(device, torch.float32)
    if dense.dim() != 4 or dense.shape[0] != 1 or dense.shape[1] != head.in_channels:
        raise ArgumentError(
            f"The head takes a dense map [1, {head.in_channels}, H, W], and the encoder gave "
            f"{list(dense.shape)}. Use the encoder that the head was trained with, one frame at a time."
        )
    return decode(head(dense.contiguous()), grid)[0]


def evaluate(
    encoder: EncoderFunction,
    head: BevHead,
    frames: Iterable[LabelledFrame],
    *,
    grid: VoxelGrid = CENTERPOINT_GRID,
    each: Callable[[int], None] | None = None,
    together: bool = False,
) -> AveragePrecision:
    """The AP of encoder and head over labelled frames, in constant memory but for the boxes.

    Args:
        encoder, head, grid: as for `detect`.
        frames: the frames; at least one.
        each: called with the number of frames done after each of them.
        together: under an initialised torch.distributed process group, all processes call this, each with its
            own frames (every n-th of all: ``frames[rank::size]``), and all get the AP of all frames.

    Raises ArgumentError without frames or if another process has failed, and as `detect` does.
    """
    peers = Peers.current("evaluation", ArgumentError) if together else Peers()
    own: list[tuple[Boxes, Boxes]] = []
    try:
        for frame in frames:
            found = detect(encoder, head, frame.features, frame.indices, grid=grid)
            own.append((found, frame.boxes))
            if each is not None:
                each(len(own))
    except Exception as error:
        peers.fail(error)
        raise
    # In the order of one process: equal scores are taken in the order of frames.
    turns = zip_longest(*peers.exchange(own))
    everything = [pair for turn in turns for pair in turn if pair is not None]
    return average_precision([found for found, _ in everything], [boxes for _, boxes in everything])
