# SPDX-License-Identifier: Apache-2.0
"""The call of `torch.onnx.export` that commands share."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["EXPORTERS", "export_onnx", "quiet"]

EXPORTERS = ("dynamo", "torchscript")


def export_onnx(graph: GraphModule, path: Path, exporter: str = "dynamo") -> None:
    """Write `graph` to `path` with one of torch's exporters; the file appears complete or not at all.

    It has the graph's metadata with either: the TorchScript exporter leaves them out, so they are added.
    """
    import torch

    from quant.frames import input_spec
    from scn_fx.onnx import export_options, onnx_view, write_metadata

    view = onnx_view(graph)
    # The number of voxels stays free; values do not matter, for nothing of them ends up in the file.
    features = torch.zeros(8, input_spec(graph).channels or 1)
    options = export_options(graph, exporter=exporter)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(view, (features,), str(partial), dynamo=exporter == "dynamo", **options)
        if exporter == "torchscript":
            write_metadata(partial, graph)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
