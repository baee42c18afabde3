# SPDX-License-Identifier: Apache-2.0
"""The names of `scn_fx.exporting`, for who imports them from here."""

from scn_fx.exporting import EXPORTERS, export_onnx, quiet

__all__ = ["EXPORTERS", "export_onnx", "quiet"]
