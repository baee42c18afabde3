# SPDX-License-Identifier: Apache-2.0
"""The processes that calibrate or evaluate together: torch.distributed's, or one process alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from scn_fx.errors import ScnError

__all__ = ["Peers"]


@dataclass
class Peers:
    """This process's rank among `size`; every rank must call the same methods in the same order.

    A rank that has failed says so in place of what the others wait for, so that they stop with a clear error
    instead of waiting for ever.

    Attributes:
        rank, size: this process's number, and how many there are.
        task: what they do, for messages.
        error: what is raised if another one has failed.
    """

    rank: int = 0
    size: int = 1
    task: str = "work"
    error: type[ScnError] = ScnError
    # Whether a rank is known to have failed: nobody waits for anything any more.
    _parted: bool = False

    @classmethod
    def current(cls, task: str, error: type[ScnError]) -> Peers:
        """The ranks of the initialised default process group, or one process alone."""
        import torch

        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size(), task, error)

    def exchange(self, item: Any) -> list[Any]:
        """The items of all ranks, by rank; they are pickled.

        Raises `error` if another rank has failed, or cannot be reached any more.
        """
        if self.size == 1:
            return [item]
        found = self._gather((None, item))
        failures = [f"rank {rank}: {failure}" for rank, (failure, _) in enumerate(found) if failure]
        if failures:
            self._parted = True
            raise self.error(
                f"The {self.task} stops, because {len(failures)} of {self.size} processes failed: "
                f"{'; '.join(failures)}"
            )
        return [item for _, item in found]

    def fail(self, error: Exception) -> None:
        """Tell the others, who wait for an item, that this rank has none to give."""
        if self.size > 1 and not self._parted:
            with suppress(self.error):  # the others may be gone as well; this rank's own error says more
                self._gather((f"{type(error).__name__}: {error}", None))

    def _gather(self, item: tuple[str | None, Any]) -> list[tuple[str | None, Any]]:
        import torch.distributed as group

        try:
            if group.get_backend() == "gloo":
                # Unlike a collective it says which ranks are missing.
                group.monitored_barrier(timeout=_patience(), wait_all_ranks=True)
            found: list[Any] = [None] * self.size
            group.all_gather_object(found, item)
        except RuntimeError as error:
            self._parted = True
            raise self.error(
                f"A process of this {self.task} has died or does not answer (this is rank {self.rank} of "
                f"{self.size}): {error}. See the output of the others, and start all of them again."
            ) from error
        return found


def _patience() -> timedelta | None:
    """The time limit that the process group was made with; None (torch's own default) if it does not say."""
    import torch
    from torch.distributed.distributed_c10d import _get_default_group

    try:
        limit = _get_default_group()._get_backend(torch.device("cpu")).options._timeout
    except (AttributeError, RuntimeError):
        return None
    return limit if isinstance(limit, timedelta) else None
