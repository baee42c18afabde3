# SPDX-License-Identifier: Apache-2.0
"""The call of `torch.onnx.export` that commands, benchmarks and measurements share."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scn_fx.files.atomic import replaced
from scn_fx.files.onnx_models import read_model
from scn_fx.operators.dialects import LIBSPCONV

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["EXPORTERS", "export_onnx", "quiet"]

EXPORTERS = ("dynamo", "torchscript")


def export_onnx(graph: GraphModule, path: Path, exporter: str = "dynamo", dialect: str = LIBSPCONV) -> int:
    """Write `graph` to `path` with one of torch's exporters; returns the number of nodes in the file.

    The file appears complete, and after the engine's reader has taken it, or not at all. Raises WriteError
    when it cannot be written.

    It has the graph's metadata with either: the TorchScript exporter leaves them out, so they are added.
    """
    import torch

    from scn_fx.onnx import export_options, onnx_view, write_metadata
    from scn_fx.quant.frames import input_spec

    view = onnx_view(graph, dialect)
    # The number of voxels stays free; values do not matter, for nothing of them ends up in the file.
    features = torch.zeros(8, input_spec(graph).channels or 1)
    options = export_options(graph, exporter=exporter, dialect=dialect)
    with replaced(path) as partial:
        with quiet(), torch.no_grad():
            torch.onnx.export(view, (features,), partial, dynamo=exporter == "dynamo", **options)
        if exporter == "torchscript":
            write_metadata(partial, graph, dialect)
        return len(read_model(partial)["nodes"])


@contextmanager
def quiet() -> Iterator[None]:
    """Hides warnings of other packages: about packages we do not use, and about exporters growing old."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
