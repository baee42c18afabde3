# SPDX-License-Identifier: Apache-2.0
"""A trained detector as one file of float16 arrays, and the one that ships with scn-fx."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from scn_fx.detection.head import BevHead
from scn_fx.errors import ArgumentError
from scn_fx.files.arrays import open_npz
from scn_fx.files.atomic import write_file

if TYPE_CHECKING:
    from scn_fx.zoo import CenterPointEncoder

__all__ = ["SHIPPED", "Detector", "load_detector", "save_detector", "trained_detector"]

SHIPPED = Path(__file__).parent / "centerpoint_synthetic.npz"
"""The detector trained by examples/detector/train.py."""

_SHAPE = ("in_channels", "channels", "grid", "head_width", "classes")


@dataclass(frozen=True, eq=False)
class Detector:
    """Encoder and head, in evaluation mode; weights are float32 that float16 holds exactly."""

    encoder: CenterPointEncoder
    head: BevHead

    @classmethod
    def fresh(
        cls,
        in_channels: int = 5,
        channels: tuple[int, ...] = (16, 32, 64, 128),
        *,
        grid: tuple[int, ...] = (1440, 1440, 40),
        head_width: int = 64,
        classes: int = 5,
    ) -> Detector:
        """A detector with random weights; arguments as those of CenterPointEncoder and BevHead."""
        from scn_fx.zoo import CenterPointEncoder  # and with it spconv, which the head does without

        head = BevHead(channels[-1] * _slices(grid[2] + 1), head_width, classes)
        return cls(CenterPointEncoder(in_channels, channels, grid=grid), head)

    def parts(self) -> dict[str, nn.Module]:
        """The modules by the prefix of their arrays in a file."""
        return {"encoder": self.encoder, "head": self.head}


def _slices(z: int) -> int:
    """Slices of the dense map for a sparse grid of `z` slices (see CenterPointEncoder): 41 become 2."""
    for padding in (1, 1, 0):
        z = (z + 2 * padding - 3) // 2 + 1
    return (z - 3) // 2 + 1


def save_detector(path: str | os.PathLike[str], detector: Detector) -> None:
    """Write the weights as float16 to an `.npz` file; equal weights give equal bytes.

    Raises ArgumentError for weights that float16 cannot hold, `WriteError` when it cannot be written.
    """
    encoder, head = detector.encoder, detector.head
    first = encoder.conv_input[0].weight
    widths = [
        encoder.conv1[0].conv1,
        encoder.conv2[-1].conv1,
        encoder.conv3[-1].conv1,
        encoder.conv4[-1].conv1,
    ]
    arrays: dict[str, np.ndarray] = {
        "in_channels": np.array(first.shape[-1]),
        "channels": np.array([layer.weight.shape[0] for layer in widths]),
        "grid": np.array(encoder.grid),
        "head_width": np.array(head.width),
        "classes": np.array(head.classes),
    }
    for prefix, module in detector.parts().items():
        for name, tensor in module.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            values = tensor.detach().cpu().float()
            half = values.half()
            if not bool(torch.isfinite(half).all()):
                raise ArgumentError(
                    f"{prefix}.{name} has values that float16 cannot hold (largest {values.abs().max():g}). "
                    "The training has diverged: start it again with a lower learning rate."
                )
            arrays[f"{prefix}.{name}"] = half.numpy()
    write_file(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load_detector(path: str | os.PathLike[str]) -> Detector:
    """The detector of a file of `save_detector`, on the CPU and in evaluation mode.

    Raises ArgumentError when it is no such file, or arrays are missing, superfluous or of another shape.
    """
    with open_npz(path, ArgumentError) as archive:
        arrays = {name: archive[name] for name in archive.names}
    shape = _shape(path, arrays)
    detector = Detector.fresh(**shape)
    for prefix, module in detector.parts().items():
        state = module.state_dict()
        for name, tensor in state.items():
            if name.endswith("num_batches_tracked"):
                continue
            values = arrays.pop(f"{prefix}.{name}", None)
            if values is None or values.shape != tuple(tensor.shape) or values.dtype != np.float16:
                came = "nothing" if values is None else f"{values.dtype.name} {list(values.shape)}"
                raise ArgumentError(
                    f"{path}: expected {prefix}.{name} as float16 {list(tensor.shape)}, got {came}. "
                    "The file is of another model: write it with save_detector."
                )
            state[name] = torch.from_numpy(values).float()
        module.load_state_dict(state)
        module.eval()
    if arrays:
        raise ArgumentError(
            f"{path}: {len(arrays)} arrays belong to no layer of the detector, first {next(iter(arrays))!r}. "
            "The file is of another model: write it with save_detector."
        )
    return detector


def _shape(path: str | os.PathLike[str], arrays: dict[str, Any]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name in _SHAPE:
        values = arrays.pop(name, None)
        size = {"channels": 4, "grid": 3}.get(name, 1)
        if values is None or values.dtype.kind != "i" or values.size != size or not (values > 0).all():
            raise ArgumentError(
                f"{path}: expected {size} whole number(s) > 0 named {name!r}, got "
                f"{'nothing' if values is None else values.tolist()}. It is no file of save_detector."
            )
        if (values > 4096).any():
            raise ArgumentError(f"{path}: {name} of {values.tolist()} is beyond any detector: at most 4096.")
        found[name] = int(values) if size == 1 else tuple(int(v) for v in values)
    return found


def trained_detector() -> Detector:
    """The detector that ships: trained on synthetic traffic scenes in CenterPoint's grid.

    Raises ArgumentError when this copy of scn-fx comes without it.
    """
    if not SHIPPED.is_file():
        raise ArgumentError(
            f"This copy of scn-fx has no trained detector ({SHIPPED.name}). Train one with "
            "examples/detector/train.py and read it with load_detector."
        )
    return load_detector(SHIPPED)
