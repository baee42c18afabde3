# SPDX-License-Identifier: Apache-2.0
"""The command in this process, and the files that its tests share: frames, a cache, ONNX files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from scn_fx.cli.app import command
from scn_fx.lidar import write_tensor
from tests.quant.graphs import frame

MODEL = "tests.quant.graphs:residual"
"""A captured graph of four convolutions and an Add, by import path."""

Invoke = Callable[..., Result]


def invoke(*arguments: object, code: int = 0) -> Result:
    """Run `scn-fx` with `arguments`; fails unless it exits with `code` and without a traceback."""
    result = CliRunner().invoke(command, [str(a) for a in arguments], prog_name="scn-fx")
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def invoke_json(*arguments: object, code: int = 0) -> Any:
    """The same with `--json`; what it prints as plain data."""
    return json.loads(invoke(*arguments, "--json", code=code).stdout)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files by name: frames (a folder), features, indices, cache, int8, float."""
    folder = tmp_path_factory.mktemp("cli")
    frames = folder / "frames"
    frames.mkdir()
    for seed in (0, 1):
        features, indices = (tensor.numpy() for tensor in frame(seed))
        write_tensor(frames / f"{seed}.features.tensor", features)
        write_tensor(frames / f"{seed}.indices.tensor", indices)
    cache, int8, single = (folder / name for name in ("cache.json", "int8.onnx", "float.onnx"))
    invoke("calibrate", "--model", MODEL, "--frames", frames, "-o", cache, "--method", "max")
    invoke("export", "--model", MODEL, "--cache", cache, "-o", int8)
    invoke("export", "--model", MODEL, "--float", "-o", single, "--exporter", "torchscript")
    return {
        "folder": folder,
        "frames": frames,
        "features": frames / "0.features.tensor",
        "indices": frames / "0.indices.tensor",
        "cache": cache,
        "int8": int8,
        "float": single,
    }
