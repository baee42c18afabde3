# SPDX-License-Identifier: Apache-2.0
"""Imports scn_fx._core from the file that SCN_FX_CORE names; Python imports this module when it starts."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType


class _Core(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        place = os.environ.get("SCN_FX_CORE")
        if fullname != "scn_fx._core" or not place:
            return None
        return importlib.util.spec_from_file_location(fullname, place)


sys.meta_path.insert(0, _Core())
