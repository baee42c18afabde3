# SPDX-License-Identifier: Apache-2.0
"""Export of a captured graph in the ONNX dialect of libspconv, by either exporter of torch.onnx."""

from __future__ import annotations

from scn_fx.onnx.metadata import write_metadata
from scn_fx.onnx.options import export_options
from scn_fx.onnx.view import onnx_view

__all__ = ["export_options", "onnx_view", "write_metadata"]
