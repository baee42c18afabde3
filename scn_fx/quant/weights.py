# SPDX-License-Identifier: Apache-2.0
"""Loads a checkpoint's weights into a model, whatever container, prefix and weight layout they come in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from scn_fx.errors import CalibrationError
from scn_fx.quant.checkpoint_files import read_checkpoint, state_dicts
from scn_fx.quant.layouts import convolutions, in_module_layout, layout_of
from scn_fx.quant.prefixes import Place, choose_place, find_places
from scn_fx.quant.unpickling import Foreign

__all__ = ["load_weights"]

PREFIX_OPTION = "prefix=... (--checkpoint-prefix on the command line)"
_LAYOUT_OPTION = "layout=... (--checkpoint-layout on the command line)"
_SHOWN = 5


def load_weights(
    module: nn.Module, checkpoint: str | Path, *, prefix: str | None = None, layout: str | None = None
) -> None:
    """Load the weights of a PyTorch checkpoint into `module`; nothing of the file is executed.

    The state dict may lie anywhere in the file ("state_dict", "model_state", "model", ...; a module saved as
    a whole serves too), and a prefix ("backbone.") may precede the module's own names; weights of other
    modules are ignored. Values are converted to the module's dtype.

    Args:
        module: the model; unchanged after any error.
        checkpoint: a file of torch.save.
        prefix: container and prefix of the module's names ("state_dict.backbone.") or the prefix alone; None
            finds them. It is needed only if the file holds the module several times (student and teacher,
            weights and their moving average), unless one of these bears the module's full names.
        layout: how spconv's weights are kept, see `quant.layouts.LAYOUTS`; None finds it from the shapes of
            all layers.

    Raises:
        CalibrationError: the file cannot be read; weights are missing, not finite, of another shape or
            kind; several places or layouts are possible; the file has a weight (say a bias) that a layer of
            the module has no place for.
    """
    source = str(checkpoint)
    content = read_checkpoint(checkpoint)
    dicts = state_dicts(content)
    if not dicts:
        raise CalibrationError(
            f"The checkpoint {source} holds no state dict, but {_kind(content)}"
            f"{_contents(content)}. Expected names with tensors, as torch.save(model.state_dict(), path) "
            "writes them."
        )
    own = {k: v for k, v in module.state_dict().items() if isinstance(v, torch.Tensor) and _is_weight(k)}
    if not own:
        raise CalibrationError(f"{type(module).__name__} has no weights to load from {source}.")
    twins = _same_tensors(own)
    places = find_places(dicts, own)

    def complete(place: Place) -> bool:
        return all(any(name in place.keys for name in group) for group in twins)

    place = choose_place(places, complete, prefix=prefix, source=source, option=PREFIX_OPTION)
    if place is None:
        raise CalibrationError(_nothing_fits(source, module, dicts, places, twins, prefix))
    stored = dicts[place.container]
    _check_no_weight_is_lost(source, module, place, stored)
    values = {name: _checked(source, place.keys[name], stored, own[name]) for name in place.keys}
    found = {name: child for name, child in convolutions(module).items() if name in values}
    kept = {name: values[name] for name in found}
    chosen = layout_of(kept, found, source=source, asked=layout, option=_LAYOUT_OPTION)
    for name, child in found.items():
        values[name] = in_module_layout(values[name], chosen, child)
    for name, value in values.items():
        if value.shape != own[name].shape:
            raise CalibrationError(
                f"{source}: {place.keys[name]} must be {list(own[name].shape)}, got {list(value.shape)}. The "
                "model is not the one that was trained."
            )
    _check_twins(source, twins, values)
    with torch.no_grad():
        # Not load_state_dict: spconv's hook there permutes once more if its environment variable is set.
        for name, value in values.items():
            own[name].copy_(value)


def _is_weight(name: str) -> bool:
    """Whether the value of a state dict changes results; counters of BatchNorm and spconv do not."""
    return name.rpartition(".")[2] not in ("num_batches_tracked", "max_num_voxels_during_training")


def _same_tensors(own: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Names of the module grouped by the tensor they share (a layer registered twice, tied weights)."""
    groups: dict[object, list[str]] = {}
    for name, tensor in own.items():
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
        groups.setdefault(identity, []).append(name)
    return list(groups.values())


def _check_twins(source: str, twins: list[list[str]], values: Mapping[str, torch.Tensor]) -> None:
    for group in twins:
        given = [name for name in group if name in values]
        for name in given[1:]:
            if not torch.equal(values[name], values[given[0]]):
                raise CalibrationError(
                    f"{source}: {given[0]} and {name} are one tensor in the model, but differ in the "
                    "checkpoint. Remove the wrong one from the state dict."
                )


def _checked(source: str, key: str, stored: Mapping[str, torch.Tensor], own: torch.Tensor) -> torch.Tensor:
    """The stored tensor, if it is an ordinary one that `own` can take."""
    value = stored[key].detach()
    ordinary = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not ordinary or (own.is_floating_point() and not value.is_floating_point()):
        raise CalibrationError(
            f"{source}: {key} must be a plain floating-point tensor, got {value.dtype} ({value.layout}, "
            f"{value.device}). Quantised and distributed weights must be converted before they are saved."
        )
    # One of another size is refused by its shape: a view of one value may have 10^12 elements.
    if value.numel() == own.numel() and not bool(value.isfinite().all()):
        raise CalibrationError(
            f"{source}: {key} holds NaN or infinite values. Training has diverged, or the file is damaged; "
            "take an earlier checkpoint."
        )
    return value


def _check_no_weight_is_lost(
    source: str, module: nn.Module, place: Place, stored: Mapping[str, torch.Tensor]
) -> None:
    """A stored weight of one of the module's own layers (a bias, say) must have a place in it."""
    used = set(place.keys.values())
    layers = {key.rpartition(".")[0] for key in used}
    lost = [key for key in stored if key.rpartition(".")[0] in layers and key not in used and _is_weight(key)]
    if lost:
        raise CalibrationError(
            f"{source} holds {', '.join(lost[:_SHOWN])}{_more(lost)}, for which {type(module).__name__} has "
            "no place although it has the layer. Without it the result would be another: build the model as "
            "it was trained (bias, normalisation)."
        )


def _nothing_fits(
    source: str,
    module: nn.Module,
    dicts: Mapping[tuple[str, ...], Mapping[str, torch.Tensor]],
    places: tuple[Place, ...],
    twins: list[list[str]],
    prefix: str | None,
) -> str:
    """What is there, and how near the nearest prefix is."""
    keys = ["".join(f"{part}." for part in path) + key for path, names in dicts.items() for key in names]
    there = f"The file holds {', '.join(keys[:_SHOWN])}{_more(keys)}."
    asked = None if prefix is None else prefix.rstrip(".")
    near = [p for p in places if asked is None or asked in (p.label.rstrip("."), p.prefix.rstrip("."))]
    if not near:
        under = "" if prefix is None else f" under the prefix {prefix!r}"
        first = twins[0][0]
        return (
            f"{source} lacks all {len(twins)} weights of {type(module).__name__}{under} ({first}, ...). "
            f"{there} Is it the checkpoint of this model?"
        )
    best = max(near, key=lambda place: (len(place.keys), -len(place.label)))
    missing = [best.label + group[0] for group in twins if not any(name in best.keys for name in group)]
    return (
        f"{source} lacks {len(missing)} of {len(twins)} weights of {type(module).__name__}: "
        f"{', '.join(missing[:_SHOWN])}{_more(missing)}. The nearest prefix is {best.label!r}, where "
        f"{len(twins) - len(missing)} of {len(twins)} fit. {there}"
    )


def _kind(content: object) -> str:
    return f"an object of {content.origin}" if isinstance(content, Foreign) else f"a {type(content).__name__}"


def _contents(content: object) -> str:
    if not isinstance(content, Mapping):
        return ""
    keys = [str(key) for key in content]
    return f" with {', '.join(keys[:_SHOWN])}{_more(keys)}" if keys else ", which is empty"


def _more(names: list[str]) -> str:
    return ", ..." if len(names) > _SHOWN else ""
