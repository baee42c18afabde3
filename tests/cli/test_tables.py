# SPDX-License-Identifier: Apache-2.0
"""Tables on narrow terminals: no line is longer, and every number of the wide table is there unsplit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from quant.layer_table import layer_table

from scn_fx.cli.bands import Cells, bands
from tests.cli.conftest import MODEL, invoke

Files = dict[str, Path]

NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]\d+)?%?")


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("command", ["inspect", "compare", "calibrate", "sensitivity"])
def test_numbers_stay_whole(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, width: int
) -> None:
    named = ("--model", MODEL, "--cache", files["cache"], "--frames", files["features"])
    arguments: tuple[object, ...] = {
        "inspect": ("inspect", files["int8"]),
        "compare": ("compare", files["float"], *named),
        "sensitivity": ("sensitivity", *named),
        "calibrate": ("calibrate", *named[:2], "--frames", files["features"], "-o", tmp_path / "c.json"),
    }[command]
    wide = invoke(*arguments).stdout
    monkeypatch.setenv("COLUMNS", str(width))
    narrow = invoke(*arguments).stdout
    end = next(mark for mark in ("limits: ", "nodes  ", "1 frame") if mark in wide)
    rows, shown = wide.partition(end)[0], narrow.partition(end)[0]
    texts = ("output: ", MODEL, str(files["int8"]))  # a title, and what differs in words
    assert max(len(line) for line in shown.splitlines() if not line.startswith(texts)) <= width
    assert sorted(NUMBER.findall(shown)) == sorted(NUMBER.findall(rows))


def test_columns_stand_below_each_other_where_they_do_not_fit() -> None:
    columns = (
        Cells("node", ["conv1", "a name far too long for it"]),
        Cells("kind", ["", "subm"]),
        Cells("ms", ["1.25", "100.5"], right=True),
    )
    assert list(bands(columns, 80)) == [
        "node                        kind     ms",
        "─" * 39,
        "conv1                              1.25",
        "a name far too long for it  subm  100.5",
    ]
    assert list(bands(columns, 20)) == [
        "node",
        "  kind     ms",
        "─" * 20,
        "conv1",
        "         1.25",
        "a name far too long",
        "  for it",
        "  subm  100.5",
    ]


def test_ranges_of_two_inputs_and_long_names() -> None:
    rows = [
        {"name": "conv", "precision": "int8", "output_precision": "fp16", "ranges": [1.5], "largest": [2.25]},
        {
            "name": "backbone.block.add",
            "precision": "int8",
            "output_precision": "int8",
            "ranges": [1.0, 20.0],
            "largest": [1.0, 0.000123456],
        },
    ]
    wide = list(layer_table(rows))
    assert wide[2] == "backbone.block.add  int8       int8    1 (1), 20 (0.000123456)"
    assert list(layer_table(rows, 56))[3:] == [
        "backbone.block.add  int8       int8    1 (1)",
        "                                       20 (0.000123456)",
    ]
    narrow = list(layer_table(rows, 38))
    assert narrow[-3:] == [
        "backbone.block.add",
        "  int8       int8    1 (1)",
        "                     20 (0.000123456)",
    ]
