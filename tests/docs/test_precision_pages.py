# SPDX-License-Identifier: Apache-2.0
"""The examples of the pages about precisions, retrofit and other tools' ranges run as they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import quant
from scn_fx.exporting import export_onnx
from tests.docs.test_docs import blocks
from tests.quant.graphs import frame, residual


@pytest.mark.filterwarnings("ignore")
def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = [frame(0), frame(1)]
    graph = residual()
    export_onnx(graph, tmp_path / "scn.onnx", "torchscript")
    quant.calibrate(graph, frames, progress=False)
    quant.save_pytorch_quantization(graph, tmp_path / "ptq.pth", prefix="net", adds="largest")
    names: dict[str, Any] = {
        "quant": quant,
        "graph": graph,
        "frames": frames,
        "few_frames": frames,
        "evaluate": lambda run: -float(run(*frames[0]).float().abs().sum()),
        "model": torch.nn.Module(),
    }
    for page in ("precision", "retrofit", "bridges"):
        for block in blocks(f"how-to/{page}.md"):
            exec(block, names)
    printed = capsys.readouterr().out
    assert "together" in printed and "sqnr>=30" in printed and printed.endswith("() ()\n")
    assert (tmp_path / "scn.int8.onnx").exists() and (tmp_path / "ranges.pth").exists()
