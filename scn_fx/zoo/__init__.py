# SPDX-License-Identifier: Apache-2.0
"""Sparse networks for demonstrations and tests, written as the field writes them.

spconv is imported with the first model, not with this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scn_fx.errors import MissingPackageError

if TYPE_CHECKING:
    from scn_fx.zoo.centerpoint import CenterPointEncoder
    from scn_fx.zoo.hednet import HEDNetEncoder
    from scn_fx.zoo.large_kernel import LargeKernelEncoder
    from scn_fx.zoo.pillarnet import PillarNetEncoder
    from scn_fx.zoo.pointgroup import PointGroupUNet
    from scn_fx.zoo.scale import demo_frame, demo_model, randomise_weights, scale_weights
    from scn_fx.zoo.second import SecondEncoder, SecondResEncoder
    from scn_fx.zoo.spunet import SpUNet
    from scn_fx.zoo.unet_v2 import UNetV2
    from scn_fx.zoo.voxelnext import VoxelNeXtEncoder

__all__ = [
    "CenterPointEncoder",
    "HEDNetEncoder",
    "LargeKernelEncoder",
    "PillarNetEncoder",
    "PointGroupUNet",
    "SecondEncoder",
    "SecondResEncoder",
    "SpUNet",
    "UNetV2",
    "VoxelNeXtEncoder",
    "demo_frame",
    "demo_model",
    "randomise_weights",
    "scale_weights",
]

_HOME = {
    "CenterPointEncoder": "centerpoint",
    "HEDNetEncoder": "hednet",
    "LargeKernelEncoder": "large_kernel",
    "PillarNetEncoder": "pillarnet",
    "PointGroupUNet": "pointgroup",
    "SecondEncoder": "second",
    "SecondResEncoder": "second",
    "SpUNet": "spunet",
    "UNetV2": "unet_v2",
    "VoxelNeXtEncoder": "voxelnext",
    "demo_frame": "scale",
    "demo_model": "scale",
    "randomise_weights": "scale",
    "scale_weights": "scale",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scn_fx.zoo' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"scn_fx.zoo.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("spconv", "cumm"):
            raise MissingPackageError.of("spconv", "spconv-cpu", f"The model {name}") from error
        if missing == "torch":
            raise MissingPackageError.of("torch", "torch", f"The model {name}") from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
