# SPDX-License-Identifier: Apache-2.0
"""scn-fx: capture, quantise, export and run sparse 3D convolution networks.

Public names are loaded on first use, so that importing the package stays light: an engine needs numpy alone,
`capture` needs torch and spconv, and the exporter needs torch and onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scn_fx import quant

    # By its module: of the package's own name, type checkers would take the package.
    from scn_fx.capture.capture import capture
    from scn_fx.onnx import export_options, onnx_view
    from scn_fx.runtime import Engine, compare
    from scn_fx.runtime.module import EngineModule
    from scn_fx.runtime.plans import save_plan

__version__ = "0.1.0"

_HOME = {
    "Engine": "scn_fx.runtime",
    "EngineModule": "scn_fx.runtime.module",
    "capture": "scn_fx.capture",
    "compare": "scn_fx.runtime",
    "export_options": "scn_fx.onnx",
    "onnx_view": "scn_fx.onnx",
    "save_plan": "scn_fx.runtime.plans",
}

__all__ = [
    "Engine",
    "EngineModule",
    "__version__",
    "capture",
    "compare",
    "export_options",
    "onnx_view",
    "quant",
    "save_plan",
]


def __getattr__(name: str) -> Any:
    if name == "quant":
        return import_module("scn_fx.quant")
    if name not in _HOME:
        raise AttributeError(f"module 'scn_fx' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("torch", "onnx", "onnxscript"):
            raise
        from scn_fx.errors import MissingPackageError

        raise MissingPackageError.of(missing, "export", f"scn_fx.{name}") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
