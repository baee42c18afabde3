# SPDX-License-Identifier: Apache-2.0
"""`quant` is `scn_fx.quant` under a short name: one module, with the same submodules and classes.

scn-fx itself imports `scn_fx.quant` alone, so a folder `quant` of somebody's own project, which Python finds
first, takes this name away and nothing else.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import scn_fx.quant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

    from scn_fx.quant import *  # noqa: F403  # what type checkers see


class _Alias(MetaPathFinder, Loader):
    """Finds `quant.x` as the module `scn_fx.quant.x`; its path alone would load every file a second time."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("quant.") or sys.modules.get("quant") is not scn_fx.quant:
            return None
        return ModuleSpec(fullname, self) if find_spec(f"scn_fx.{fullname}") else None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(f"scn_fx.{module.__name__}")

    def get_code(self, fullname: str) -> CodeType | None:
        """What `python -m quant` runs."""
        spec = find_spec(f"scn_fx.{fullname}")
        assert spec is not None
        # An InspectLoader, or what an editable installation puts before one.
        loader: Any = spec.loader
        code: CodeType | None = loader.get_code(f"scn_fx.{fullname}")
        return code


sys.meta_path.insert(0, _Alias())
sys.modules[__name__] = scn_fx.quant
