# SPDX-License-Identifier: Apache-2.0
"""Loaded into pytest by `make coverage`: a worker may take its time to write what it has counted."""

from __future__ import annotations

import pytest
from xdist.workermanage import NodeManager


def pytest_configure(config: pytest.Config) -> None:
    # After 10 seconds it would be killed, between coverage.py's data and GCC's.
    NodeManager.EXIT_TIMEOUT = 600
