# SPDX-License-Identifier: Apache-2.0
"""Arguments for ``torch.onnx.export`` that write a view of a captured graph."""

from __future__ import annotations

from typing import Any

from torch import fx

from scn_fx.errors import ExportError, MissingPackageError
from scn_fx.graph import metadata
from scn_fx.onnx.dialect import DOMAIN, DOMAIN_VERSION, OPSET
from scn_fx.onnx.schemas import register_schemas
from scn_fx.onnx.view import check_exportable, output_names
from scn_fx.operators.dialects import LIBSPCONV, check_dialect

__all__ = ["export_options"]

VOXELS = "voxels"
"""Name of the dynamic axis: the number of input sites."""


def export_options(
    graph: fx.GraphModule, exporter: str = "dynamo", dialect: str = LIBSPCONV
) -> dict[str, Any]:
    """Keyword arguments for ``torch.onnx.export(onnx_view(graph), (features,), path, dynamo=…, **options)``.

    `exporter` is "dynamo" for ``dynamo=True`` or "torchscript" for ``dynamo=False``; the latter registers the
    symbolic functions with torch. `dialect` is that of the view.

    Raises:
        CalibrationError: an int8 node has no usable ranges.
        ExportError: an unknown exporter or dialect, or a graph that no file can hold. The exporter raises one
            for a view in another dialect.
        MissingPackageError: the dynamo exporter needs onnxscript.
    """
    check_dialect(dialect)
    check_exportable(graph)
    register_schemas()
    common: dict[str, Any] = {
        "input_names": ["features"],
        "output_names": list(output_names(graph)),
        "opset_version": OPSET,
        "verbose": False,
    }
    if exporter == "dynamo":
        try:
            from scn_fx.onnx.translations import translation_table
        except ModuleNotFoundError as error:
            raise MissingPackageError.of(
                error.name or "onnxscript", "export", "The dynamo exporter"
            ) from error

        return {
            **common,
            "custom_translation_table": translation_table(metadata(graph), dialect),
            "dynamic_shapes": {"features": {0: VOXELS}},
            # The optimiser merges equal initialisers and nodes: nothing to win here, and names to lose.
            "optimize": False,
            "external_data": False,
        }
    if exporter == "torchscript":
        from scn_fx.onnx.symbolics import register_symbolics

        register_symbolics()
        return {
            **common,
            "custom_opsets": {DOMAIN: DOMAIN_VERSION},
            "dynamic_axes": {"features": {0: VOXELS}},
            "do_constant_folding": False,
        }
    raise ExportError(f"exporter must be 'dynamo' or 'torchscript', got {exporter!r}.")
