# SPDX-License-Identifier: Apache-2.0
"""How much memory the content of one file may take."""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["largest_array_bytes", "machine_bytes"]

_MOST = 4 << 30
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_bytes() -> int | None:
    """Memory that this process may use: the machine's, or less if its container has less; None if unknown."""
    known = []
    with suppress(AttributeError, OSError, ValueError):  # no POSIX system
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _CGROUPS:
        try:
            with open(path, encoding="ascii") as file:
                known.append(int(file.read(64)))
        except (OSError, ValueError):  # no cgroup, or "max"
            continue
    return min((count for count in known if count > 0), default=None)


def largest_array_bytes() -> int:
    """Most bytes of one array out of a file: 4 GiB, or half of the memory if that is less.

    A file of some kilobytes may be an honest archive of gigabytes of zeros.
    """
    memory = machine_bytes()
    return _MOST if memory is None else min(_MOST, memory // 2)
