# SPDX-License-Identifier: Apache-2.0
"""What an engine says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from scn_fx import Engine

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus" / "onnx"


def test_an_engine_says_what_it_runs_and_where() -> None:
    path = CORPUS / "residual-int8.onnx"
    text = repr(Engine(path, threads=1))
    assert text.startswith(f"<scn_fx.Engine of {str(path)!r}: convolutions 3 in int8; takes features [N, 3]")
    assert "[N, 4] (batch, z, y, x)" in text and text.endswith(", 1 thread(s)>")
    of_bytes = repr(Engine(path.read_bytes(), precision="fp32"))
    assert f"of {path.stat().st_size} bytes: convolutions 3 in fp32" in of_bytes


@pytest.mark.parametrize(("name", "batch"), [("residual-int8", None), ("bev-fp16", 2)])
def test_the_batch_size_is_that_of_the_file_or_none(name: str, batch: int | None) -> None:
    assert Engine(CORPUS / f"{name}.onnx").describe()["batch_size"] == batch
