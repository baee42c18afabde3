# SPDX-License-Identifier: Apache-2.0
"""The network of the benchmark: CenterPoint's sparse encoder, captured, calibrated and exported once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from scn_fx.bench.frames import SMALL_GRID
from scn_fx.errors import WriteError
from scn_fx.files.atomic import partial_name, write_file

__all__ = ["PRECISIONS", "ModelFiles", "find_model", "prepare_model"]

PRECISIONS = ("fp32", "fp16", "int8")

_METHOD = "max"
_FULL_CHANNELS, _FULL_GRID = (16, 32, 64, 128), (1440, 1440, 40)
_SMALL_CHANNELS = (4, 8, 8, 8)
# Everything that decides what is in the files; a change of any of it makes new ones.
_SOURCES = (
    "scn_fx/quant",
    "scn_fx/capture",
    "scn_fx/lidar",
    "scn_fx/onnx",
    "scn_fx/ops",
    "scn_fx/passes",
    "scn_fx/zoo",
)


@dataclass(frozen=True)
class ModelFiles:
    """Files of one network."""

    int8: Path
    """ONNX with ranges and int8 precisions."""
    single: Path
    """ONNX without precisions: runs in fp16, or in fp32 on request."""
    weights: Path
    """npz: float32 weight [out, kz, ky, kx, in] of each convolution by name, BatchNorm folded."""
    channels: tuple[int, ...]
    grid: tuple[int, ...]
    """Voxels along (x, y, z)."""

    def source(self, precision: str) -> tuple[Path, str | None]:
        """File and engine option for one of `PRECISIONS`."""
        if precision == "int8":
            return self.int8, None
        return self.single, "fp32" if precision == "fp32" else None


def prepare_model(workdir: Path, *, small: bool = False) -> ModelFiles:
    """The files in `workdir`, made if they are not there yet (about 20 s for the full network).

    Weights are random, scaled to one synthetic frame; ranges come from another. Timings depend on neither,
    except that int8 with AVX2 is faster the smaller most weights are beside the largest of their channel.
    Making them needs torch, spconv and onnx; using them needs none of these.
    """
    channels, grid = _dimensions(small)
    folder = workdir / f"{_prefix(small)}{_fingerprint()}"
    files = _files(folder, small)
    if folder.is_dir():
        return files
    partial = workdir / partial_name(folder.name)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise WriteError(
            f"{workdir} cannot hold the network's files: {error.strerror}. Name another folder."
        ) from error
    try:
        _make(partial, channels, grid, small)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, and its files are the same
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return files


def find_model(workdir: Path, *, small: bool = False) -> ModelFiles:
    """The same, but the newest files of other sources or packages serve too, say from another machine."""
    folder = workdir / f"{_prefix(small)}{_fingerprint()}"
    if not folder.is_dir():
        others = [path for path in workdir.glob(f"{_prefix(small)}[0-9a-f]*") if path.is_dir()]
        if others:
            return _files(max(others, key=lambda path: path.stat().st_mtime), small)
    return prepare_model(workdir, small=small)


def _prefix(small: bool) -> str:
    return "centerpoint-small-" if small else "centerpoint-"


def _dimensions(small: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and grid."""
    return (_SMALL_CHANNELS, SMALL_GRID) if small else (_FULL_CHANNELS, _FULL_GRID)


def _files(folder: Path, small: bool) -> ModelFiles:
    return ModelFiles(
        folder / "int8.onnx", folder / "float.onnx", folder / "weights.npz", *_dimensions(small)
    )


def _make(folder: Path, channels: Sequence[int], grid: Sequence[int], small: bool) -> None:
    import numpy as np
    import torch

    from scn_fx.capture import capture
    from scn_fx.exporting import export_onnx, quiet
    from scn_fx.graph import layers
    from scn_fx.lidar import CENTERPOINT_GRID, embedded_frame
    from scn_fx.quant import calibrate
    from scn_fx.zoo import demo_frame, demo_model

    if small:
        frame, other = (demo_frame(seed, 1000, grid=grid) for seed in (0, 1))
    else:
        frame, other = (
            (torch.from_numpy(f.features).float(), torch.from_numpy(f.indices))
            for f in (embedded_frame(1), embedded_frame(2))
        )
    with quiet():
        model = demo_model(0, frame, channels=channels, grid=grid)
        graph = capture(model, model.arguments(*frame), grid=None if small else CENTERPOINT_GRID)
        export_onnx(graph, folder / "float.onnx")
        weights: dict[str, Any] = {
            layer.name: layer.weight.detach().numpy() for layer in layers(graph) if layer.spec.weighted
        }
        write_file(folder / "weights.npz", lambda file: np.savez(file, **weights))
        calibrate(graph, [other], method=_METHOD, progress=False)
        export_onnx(graph, folder / "int8.onnx")


def _fingerprint() -> str:
    """Of the sources and packages that the files come from."""
    root = Path(__file__).parents[2]
    paths = [
        root / "scn_fx" / "graph.py",
        root / "scn_fx" / "geometry.py",
        root / "scn_fx" / "input_grid.py",
        Path(__file__),
    ]
    for folder in _SOURCES:
        paths += sorted((root / folder).glob("*.py"))
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    for name in ("torch", "onnx"):
        try:
            digest.update(version(name).encode())
        except PackageNotFoundError:
            digest.update(b"none")
    return digest.hexdigest()[:12]
