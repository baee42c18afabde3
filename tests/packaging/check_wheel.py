# SPDX-License-Identifier: Apache-2.0
"""Tries an installed wheel, with numpy alone: `python check_wheel.py`, where no source tree is on the path.

An int8 network of the repository runs on a frame; the result has one CRC on every machine, instruction set
and Python. cibuildwheel calls this for each wheel, and tests/packaging/test_wheel.py for a local one.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np

import scn_fx
from scn_fx import _core

ROOT = Path(__file__).parents[2]
NETWORK = ROOT / "tests" / "fuzz" / "corpus" / "onnx" / "bev-int8.onnx"
EXPECTED = 0xEBD017CE


def frame() -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [N, 2] and indices int32 [N, 4] (batch, z, y, x) of every other cell."""
    first = _core.read_onnx(str(NETWORK))["nodes"][0]["attributes"]
    cells = np.argwhere(np.ones((2, *first["input_spatial_shape"]), bool))[::2]
    features = np.arange(2 * len(cells), dtype=np.float32).reshape(-1, 2) % 7 - 3
    return features, cells.astype(np.int32)


def main() -> None:
    """Print what was found; exit with a message if the wheel is not what it should be."""
    home = Path(scn_fx.__file__).parent
    if home.is_relative_to(ROOT):
        sys.exit(f"scn_fx comes from the source tree, {home}: run this where only the wheel is installed.")
    found = sorted(path.name for path in home.rglob("*") if path.suffix in (".cpp", ".h", ".cu", ".cuh"))
    if found:
        sys.exit(f"The wheel has sources: {found[:5]}.")
    dense = scn_fx.Engine(str(NETWORK))(*frame())
    crc = zlib.crc32(np.ascontiguousarray(dense).tobytes())
    if crc != EXPECTED:
        sys.exit(f"{NETWORK.name}: expected CRC {EXPECTED:#010x}, got {crc:#010x}. The engine's bits differ.")
    module, isa = Path(_core.__file__).name, _core.cpu_features()["isa"]
    print(f"scn-fx {scn_fx.__version__}, {module}, {isa}: {crc:#010x}, as expected")


if __name__ == "__main__":
    main()
