# SPDX-License-Identifier: Apache-2.0
"""Several processes under torchrun: one gradient, one clock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from scn_fx.errors import ArgumentError

__all__ = ["Team", "team"]


@dataclass(frozen=True)
class Team:
    """The processes of a training, and the device of this one."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    def same_start(self, model: nn.Module) -> None:
        """Give every process the weights and statistics of the first."""
        if self.world > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)

    def mean_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its mean over all processes, in one exchange."""
        if self.world == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean_statistics(self, model: nn.Module) -> None:
        """Replace the running statistics of BatchNorm, which each process has of its own frames, by means."""
        if self.world == 1:
            return
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.world

    def agreed(self, value: float) -> float:
        """The first process's value, in all: clocks differ, and all must stop after the same step."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return float(tensor)


@contextmanager
def team(device: str) -> Iterator[Team]:
    """This process and, under torchrun, the others; `device` is "cuda" or "cpu".

    Raises ArgumentError where there is no such device for this process.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda" and torch.cuda.device_count() <= local:
        found = torch.cuda.device_count()
        raise ArgumentError(
            f"Process {local} of this machine needs a GPU of its own, and torch sees {found}. "
            + ("Start fewer processes." if found else "Pass --device cpu for a try; a training needs a GPU.")
        )
    own = torch.device("cuda", local) if device == "cuda" else torch.device("cpu")
    if own.type == "cuda":
        torch.cuda.set_device(own)
    if world > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Team(rank, world, own)
    finally:
        if world > 1:
            dist.destroy_process_group()
