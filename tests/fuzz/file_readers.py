# SPDX-License-Identifier: Apache-2.0
"""Our readers of files: small files that they take, made by our writers, and how to mutate these."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import quant
from scn_fx.cli.arrays import read_result, write_result
from scn_fx.cli.inspect import _cells, node_rows
from scn_fx.errors import ArgumentError
from scn_fx.exporting import export_onnx
from scn_fx.files.arrays import open_npz
from scn_fx.files.onnx_models import read_model
from scn_fx.lidar import CENTERPOINT_GRID, KITTI_GRID, read_grid, read_points, read_tensor, write_tensor
from scn_fx.lidar.synthetic import synthetic_points
from scn_fx.onnx import write_metadata
from scn_fx.quant.weights import load_weights
from scn_fx.runtime.backend import Options
from scn_fx.runtime.file_grid import file_grid
from tests.fuzz.mutators import Mutator, bytes_any, json_tokens, npy_header, tensor_header, zip_records
from tests.quant.graphs import residual

__all__ = ["READERS", "Reader", "readers"]


@dataclass(frozen=True)
class Reader:
    """One way of ours to read a file."""

    name: str
    suffix: str
    seeds: tuple[bytes, ...]
    """Files that it takes."""
    read: Callable[[Path], Any]
    """Reads a file; what it returns can be hashed by `digest`, or is None."""
    mutators: tuple[Mutator, ...] = (bytes_any,)
    checked: bool = False
    """Whether the format has checksums: damage must be noticed, or change nothing."""


def digest(value: Any) -> str:
    """What a reader has returned, as a short text: the same for the same content."""
    found = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, dict):
            for key in part:
                found.update(str(key).encode("utf-8", "surrogatepass"))
                add(part[key])
        elif isinstance(part, tuple | list):
            for entry in part:
                add(entry)
        elif isinstance(part, torch.Tensor | np.ndarray):
            array = np.ascontiguousarray(part)
            found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:
            found.update(repr(part).encode("utf-8", "surrogatepass"))

    add(value)
    return found.hexdigest()[:16]


def _numpy_file(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    out = io.BytesIO()
    save(out, *arrays, **named)
    return out.getvalue()


def _written(folder: Path, name: str, write: Callable[[Path], object]) -> bytes:
    write(folder / name)
    return (folder / name).read_bytes()


def _saved(content: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **options)
    return out.getvalue()


class _Note:
    """Stands for objects of frameworks beside the weights."""

    def __init__(self) -> None:
        self.text, self.values = "epoch 3", {1, 2}


def _npz(path: Path) -> dict[str, Any]:
    result = read_result(str(path))
    with open_npz(path, ArgumentError) as file:
        found = {name: file[name] for name in file.names}
    return {"values": result.values, **found}


def _points(path: Path) -> tuple[Any, ...]:
    found = []
    for point_format in (None, "nuscenes", "kitti", "float16x5"):
        try:
            found.append(read_points(path, point_format))
        except Exception as error:
            if point_format is None:  # the others are rarely right
                raise
            if not isinstance(error, ValueError):
                raise
    return tuple(found)


_YAML = b"""CLASS_NAMES: ['Car']
DATA_CONFIG:
    POINT_CLOUD_RANGE: &range [0, -40.0, -3, 70.4, 40, 1]
    DATA_PROCESSOR:
        - NAME: mask_points
          RANGE: *range
        - NAME: transform_points_to_voxels
          VOXEL_SIZE: [0.05, 0.05, 0.1]
          MAX_POINTS_PER_VOXEL: 5
"""


FORMS = ("ascii", "binary", "binary_compressed")


def _pcd(form: str) -> bytes:
    """Four points as PCD; what is compressed are literals alone."""
    values = np.arange(16, dtype="<f4").tobytes()
    body = {
        "ascii": b"1 2 3 4\n" * 4,
        "binary": values,
        "binary_compressed": struct.pack("<II", 66, 64) + b"\x1f" + values[:32] + b"\x1f" + values[32:],
    }[form]
    counts = "SIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nWIDTH 2\nHEIGHT 2\nPOINTS 4\n"
    return f"VERSION .7\nFIELDS x y z intensity\n{counts}DATA {form}\n".encode() + body


def readers(folder: Path) -> Iterator[Reader]:
    """All readers; `folder` takes the files that writers make on the way."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(1, 2, 3, 4)).astype(np.float32)
    features, indices = rng.normal(size=(5, 4)).astype(np.float16), np.zeros((5, 4), np.int32)
    sparse = (features, indices)

    def npz(result: Any) -> bytes:
        return _written(folder, "a.npz", lambda path: write_result(path, result))

    yield Reader(
        "npz",
        ".npz",
        (npz(dense), npz(sparse), _numpy_file(np.savez, dense=dense, other=indices)),
        _npz,
        (bytes_any, zip_records(npy_header), zip_records(bytes_any)),
        checked=True,
    )
    arrays = (dense, np.asfortranarray(dense), dense.astype(">f8"), np.float16(3.5), np.zeros((0, 4), bool))
    yield Reader(
        "npy",
        ".npy",
        tuple(_numpy_file(np.save, array) for array in arrays),
        lambda path: read_result(str(path)).values,
        (bytes_any, npy_header),
    )
    tensors = [
        _written(folder, "a.tensor", lambda path, a=a: write_tensor(path, a))
        for a in (features, indices, dense)
    ]
    yield Reader("tensor", ".tensor", tuple(tensors), read_tensor, (bytes_any, tensor_header))
    points = synthetic_points(sweeps=1)[::400]
    yield Reader(
        "points",
        ".bin",
        (points.astype(np.float32).tobytes(), points[:, :4].astype(np.float32).tobytes(), tensors[0]),
        _points,
        (bytes_any, tensor_header),
    )
    yield Reader("pcd", ".pcd", tuple(_pcd(form) for form in FORMS), read_points, (bytes_any, json_tokens))
    grid = {"point_range": list(KITTI_GRID.point_range), "voxel_size": [0.05, 0.05, 0.1], "extra_z": 1}
    grids = (
        grid,
        {"point_cloud_range": grid["point_range"], "voxel_size": [0.1, 0.1, 0.2], "x": {"y": ["é", None]}},
    )
    texts = tuple(json.dumps(entry).encode() for entry in grids)
    yield Reader(
        "grid-json", ".json", texts, lambda path: read_grid(path).to_dict(), (bytes_any, json_tokens)
    )
    yield Reader(
        "grid-yaml",
        ".yaml",
        (_YAML, texts[0]),
        lambda path: read_grid(path).to_dict(),
        (bytes_any, json_tokens),
    )
    yield from _quant_readers(folder)


def _quant_readers(folder: Path) -> Iterator[Reader]:
    graph = residual()
    sites = torch.zeros(4, 4, dtype=torch.int32)
    sites[:, 3] = torch.arange(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quant.calibrate(graph, [(torch.ones(4, 3), sites)], method="max", progress=False)
    cache = _written(folder, "cache.json", lambda path: quant.save_cache(graph, path))
    target = residual()
    yield Reader(
        "cache", ".json", (cache,), lambda path: quant.load_cache(target, path), (bytes_any, json_tokens)
    )

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = model.state_dict()
    contents = ({"state_dict": state, "epoch": 3}, {"model": state, "note": _Note()}, model)

    def weights(path: Path) -> Any:
        load_weights(model, path)
        return dict(model.state_dict())

    pickles = zip_records(bytes_any)
    modern = tuple(_saved(content) for content in contents)
    yield Reader("checkpoint", ".pth", modern, weights, (bytes_any, pickles), checked=True)
    old = tuple(_saved(content, _use_new_zipfile_serialization=False) for content in contents)
    yield Reader("checkpoint-legacy", ".pth", old, weights, (bytes_any,))
    ranges = _saved(_quantizers(graph))
    yield Reader(
        "checkpoint-ranges",
        ".pth",
        (ranges,),
        lambda path: _silent(lambda: quant.load_pytorch_quantization(target, path)),
        (bytes_any, pickles),
    )

    model_file = folder / "model.onnx"
    export_onnx(graph, model_file, "torchscript")
    set_grid = b"scn_fx.grid.point_range"
    data = model_file.read_bytes()
    assert set_grid not in data
    yield Reader(
        "onnx", ".onnx", (data, data + _grid_entries()), lambda path: _onnx(path, graph), (bytes_any,)
    )


def _quantizers(graph: torch.fx.GraphModule) -> dict[str, torch.Tensor]:
    from scn_fx.graph import layers

    found = {}
    for layer in layers(graph):
        if layer.kind == "convolution":
            found[f"{layer.name}._input_quantizer._amax"] = torch.tensor(1.5)
            found[f"{layer.name}._weight_quantizer._amax"] = layer.weight.abs().amax(dim=(1, 2, 3, 4))
    found["conv1.0.quant_add._input_quantizer._amax"] = torch.tensor([7.5])
    return found


def _silent(read: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read()


def _grid_entries() -> bytes:
    """A grid as the metadata of an ONNX file keep it (metadata_props is field 14 of a model)."""
    out = b""
    for key, value in CENTERPOINT_GRID.to_text().items():
        entry = b"".join(bytes([tag, len(t)]) + t for tag, t in ((10, key.encode()), (18, value.encode())))
        out += bytes([14 << 3 | 2, len(entry)]) + entry
    return out


def _onnx(path: Path, graph: torch.fx.GraphModule) -> Any:
    found = read_model(path)
    grid = file_grid(Options(str(path)))
    table = [_cells(row) for row in node_rows(found, str(path))]
    write_metadata(path, graph)
    return {"metadata": found["metadata"], "grid": str(grid), "table": table}


READERS = (
    *("npz", "npy", "tensor", "points", "pcd", "grid-json", "grid-yaml", "cache"),
    *("checkpoint", "checkpoint-legacy", "checkpoint-ranges", "onnx"),
)
"""Names of all readers, in order."""
