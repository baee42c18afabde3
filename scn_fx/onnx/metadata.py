# SPDX-License-Identifier: Apache-2.0
"""What an exported file records about its making."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scn_fx import __version__

__all__ = ["metadata_entries"]


def metadata_entries(meta: Mapping[str, Any]) -> dict[str, str]:
    """The ``metadata_props`` of a file, from the "scn_fx" metadata of the captured graph.

    Keys: scn_fx.version, scn_fx.dialect, scn_fx.axes ("zyx" or "xyz") and, for a calibrated graph,
    scn_fx.calibration.method and scn_fx.calibration.frames.
    """
    entries = {"scn_fx.version": __version__, "scn_fx.dialect": "libspconv", "scn_fx.axes": str(meta["axes"])}
    calibration = meta.get("calibration")
    if calibration:
        entries["scn_fx.calibration.method"] = str(calibration["method"])
        entries["scn_fx.calibration.frames"] = str(calibration["frames"])
    return entries
