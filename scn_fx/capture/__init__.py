# SPDX-License-Identifier: Apache-2.0
"""From an unmodified spconv model to a fused float graph: `scn_fx.capture(model, args)`.

The package and its function have one name. Importing any module of the package binds `scn_fx.capture` to the
package, so the package itself can be called.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from scn_fx.capture.capture import capture
from scn_fx.capture.eager import run_with_own_operators

__all__ = ["capture", "run_with_own_operators"]


class _CallablePackage(types.ModuleType):
    """A package that, when called, does what its function of the same name does."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return capture(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
