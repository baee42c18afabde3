# SPDX-License-Identifier: Apache-2.0
"""The state of a training in one file, so that a run that ended early goes on as if it had not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from scn_fx.errors import ArgumentError
from scn_fx.files.arrays import open_npz
from scn_fx.files.atomic import write_file
from scn_fx.files.json_text import TextError, parse_json

__all__ = ["Progress", "load_state", "save_state"]


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time that they took, in all runs together."""


def _tensors(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        for key in ("exp_avg", "exp_avg_sq", "step"):
            if key in state:
                found[f"adam.{key}.{name}"] = state[key]
    return found


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.AdamW, progress: Progress, config: dict[str, Any]
) -> None:
    """Write everything that `load_state` needs; the earlier file stays until the new one is complete."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in _tensors(model, optimizer).items()}
    about = json.dumps({"config": config, **asdict(progress)}).encode()
    arrays["about"] = np.frombuffer(about, np.uint8)
    write_file(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.AdamW, config: dict[str, Any]
) -> Progress:
    """Take the state of `path` over into model and optimizer.

    Raises ArgumentError for a damaged file, one of another model, or of a training with another
    configuration: naming what differs.
    """
    with open_npz(path, ArgumentError) as archive:
        arrays = {name: archive[name] for name in archive.names}
    advice = "Name another --state file to start anew."
    try:
        about = parse_json(arrays.pop("about").tobytes())
        before, progress = about["config"], Progress(int(about["step"]), float(about["seconds"]))
    except (KeyError, TypeError, ValueError, TextError) as error:
        raise ArgumentError(f"{path} is no state of a training ({error}). {advice}") from error
    other = [key for key in sorted({*before, *config}) if before.get(key) != config.get(key)]
    if other:
        text = "; ".join(f"{key} was {before.get(key)!r}, is {config.get(key)!r}" for key in other)
        raise ArgumentError(
            f"{path} belongs to a training with another configuration: {text}. Resume with the same options. "
            f"{advice}"
        )
    parameters = dict(model.named_parameters())
    state = model.state_dict()
    wanted = {f"model.{name}" for name in state}
    if wanted - arrays.keys():
        raise ArgumentError(f"{path} lacks {sorted(wanted - arrays.keys())[0]}. {advice}")
    for name, tensor in state.items():
        values = torch.from_numpy(arrays[f"model.{name}"])
        if values.shape != tensor.shape:
            raise ArgumentError(
                f"{path}: expected model.{name} {list(tensor.shape)}, got {list(values.shape)}. {advice}"
            )
        tensor.copy_(values)
    for name, parameter in parameters.items():
        if f"adam.step.{name}" in arrays:
            moments = {k: torch.from_numpy(arrays[f"adam.{k}.{name}"]) for k in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {
                "step": torch.from_numpy(arrays[f"adam.step.{name}"]),
                **{key: values.to(parameter.device) for key, values in moments.items()},
            }
    return progress
