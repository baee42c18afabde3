# SPDX-License-Identifier: Apache-2.0
"""Frames of networks of one and two dimensions from C++, in rows without the axes that they lack."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.cpp_programs import program
from tests.oracle.builder import build_onnx, convolution, node


def _network(path: Path, grid: tuple[int, int, int], ndim: int) -> Path:
    """A submanifold layer, which is an output, and a strided one with its dense map."""
    rng = np.random.default_rng(0)
    kernel = tuple(3 if size > 1 else 1 for size in grid)
    centre = tuple(k // 2 for k in kernel)
    half = tuple((size + 1) // 2 for size in grid)
    first, second = (
        rng.normal(size=(out, *kernel, width)).astype(np.float16) for out, width in ((6, 4), (5, 6))
    )
    shape = [8, 5, *half]
    same = {"input_shape": grid, "output_shape": grid, "padding": centre, "subm": True}
    strided = {"input_shape": grid, "output_shape": half, "padding": centre}
    stride = tuple(2 if size > 1 else 1 for size in grid)
    pieces = [
        convolution("first", "features", "x", first, **same),
        convolution("second", "x", "y", second, stride=stride, **strided),
        node(
            "ScatterDense",
            "dense",
            ["y"],
            "map",
            format="zyx",
            input_spatial_shape=list(half),
            output_shape=shape,
        ),
    ]
    metadata = {} if ndim == 3 else {"scn_fx.ndim": str(ndim)}
    build_onnx(*pieces, outputs=["x", "map"], path=path, metadata=metadata)
    return path


@pytest.mark.parametrize(("grid", "ndim"), [((1, 5, 7), 2), ((1, 1, 7), 1)])
def test_rows_give_what_sites_give(tmp_path: Path, grid: tuple[int, int, int], ndim: int) -> None:
    files = _network(tmp_path / "flat.onnx", grid, ndim), _network(tmp_path / "space.onnx", (4, 5, 7), 3)
    done = subprocess.run([program("flat_rows"), *files], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{ndim} and 3 dimensions\n"), done.stderr
