# SPDX-License-Identifier: Apache-2.0
"""Ranges out of checkpoints of pytorch-quantization or modelopt models.

Both keep a range as the buffer `_amax` of a quantizer module: `<module>._input_quantizer._amax` (a scalar)
and `<module>._weight_quantizer._amax` (one value per output channel, the other dimensions 1); modelopt's
converted modules leave out the first underscore. A residual Add has no module of its own: public LiDAR
scripts put one beside the block's convolutions, `<block>.quant_add`, with one `_input_quantizer` for both
operands (CenterPoint, BEVFusion) or an `_input0_quantizer` and an `_input1_quantizer`. Any child of the block
whose name contains "add" is accepted.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scn_fx.errors import CalibrationError, CalibrationWarning
from scn_fx.graph import Layer
from scn_fx.quant.checkpoint_files import read_checkpoint, state_dicts
from scn_fx.quant.precision import (
    PrecisionSpec,
    default_precisions,
    output_precisions,
    resolve,
    write_precisions,
)
from scn_fx.quant.prefixes import Place, choose_place, find_places, without_wrappers
from scn_fx.quant.range_checks import check_inputs, check_readers, check_weights
from scn_fx.quant.ranges import (
    LayerRanges,
    checked_range,
    quantizable,
    rounded_weight,
    weight_ranges,
    write_ranges,
)

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["ImportReport", "load_pytorch_quantization"]

_KEY = re.compile(r"^(?P<module>.+?)\._?(?P<quantizer>input|input0|input1|weight)_quantizer\._amax$")

_Keys = dict[tuple[str, str], str]
"""(module, quantizer) -> key of the state dict."""


@dataclass(frozen=True)
class ImportReport:
    """Which ranges came from a checkpoint.

    Attributes:
        prefix: what precedes the graph's layer names in the checkpoint's keys.
        used: keys whose ranges are in the graph now.
        unused: quantizer keys that belong to no convolution or Add of the graph (heads, cameras, ...).
        missing: keys that were looked for in vain; their layers are not int8.
    """

    prefix: str
    used: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]


def load_pytorch_quantization(
    graph: GraphModule,
    state_dict: Mapping[str, Any] | str | Path,
    *,
    prefix: str | None = None,
    precision: PrecisionSpec = None,
    frames: Iterable[Sequence[Any]] | None = None,
) -> ImportReport:
    """Take the ranges of `graph` from a checkpoint made with pytorch-quantization or modelopt.

    Args:
        graph: a graph captured from the same model, its BatchNorms folded as in the checkpoint.
        state_dict: name -> tensor; or a checkpoint that holds one somewhere ("state_dict", "model", ...), or
            its file.
        prefix: what precedes the graph's layer names in the keys ("backbone."), with or without the keys that
            lead to the state dict; None finds it. Needed only if the checkpoint holds the layers several
            times, unless one of these bears the graph's full names.
        precision: overrides on the default precisions, see `quant.set_precision`. A layer may lack ranges
            only if it is not int8.
        frames: a few frames, as `quant.calibrate` takes them, to compare input ranges with (needs modelopt).

    Warns (CalibrationWarning) where ranges are too small or too large for the weights, where layers that read
    one value disagree, and where input ranges are far from what `frames` bring. Raises CalibrationError,
    leaving the graph as it was, if no key fits, several prefixes do, keys of an int8 layer are missing, a
    range is not positive, or sizes do not agree.
    """
    content = read_checkpoint(state_dict) if isinstance(state_dict, str | Path) else state_dict
    dicts = state_dicts(content, (torch.Tensor, np.ndarray, float, int))
    quantizers = {path: _quantizers(state) for path, state in dicts.items()}
    if not any(quantizers.values()):
        raise CalibrationError(
            f"The checkpoint holds no quantizer ranges: none of its {sum(map(len, dicts.values()))} keys "
            "ends in '_input_quantizer._amax' or '_weight_quantizer._amax'. Was it saved after calibration?"
        )
    found = quantizable(graph)
    chosen = resolve(graph, precision, default_precisions(graph))
    place = _find_place(quantizers, found, chosen, prefix)
    keys, state, prefix = quantizers[place.container], dicts[place.container], place.prefix
    ranges: dict[str, LayerRanges] = {}
    used: list[str] = []
    missing: list[str] = []
    needed: list[str] = []
    for layer in found:
        wanted = _wanted_keys(layer, prefix, keys)
        absent = [text for text, key in wanted if key is None]
        if absent:
            missing += absent
            needed += absent if chosen[layer.name] == "int8" else []
            continue
        present = [key for _, key in wanted if key is not None]
        used += present
        ranges[layer.name] = _layer_ranges(layer, present, state, prefix)
    unused = tuple(key for key in keys.values() if key not in set(used))
    if needed:
        raise CalibrationError(
            f"The checkpoint (prefix {prefix!r}) lacks {len(needed)} ranges of int8 layers: "
            f"{', '.join(needed)}. Unused quantizer keys: {', '.join(unused) or 'none'}. Give the right "
            "prefix, or choose fp16 for these layers with precision={...}."
        )
    findings = [check_weights(graph, ranges), check_readers(graph, ranges)]
    findings += [] if frames is None else [check_inputs(graph, ranges, frames)]
    write_ranges(graph, ranges, "checkpoint", 0)
    write_precisions(graph, chosen, output_precisions(graph, chosen))
    for finding in filter(None, findings):
        warnings.warn(finding, CalibrationWarning, stacklevel=2)
    return ImportReport(place.label, tuple(dict.fromkeys(used)), unused, tuple(missing))


def _quantizers(state: Mapping[str, Any]) -> _Keys:
    """The quantizers of a state dict; names of torch.compile and other wrappers are looked through."""
    keys: _Keys = {}
    for key in state:
        match = _KEY.match(key)
        if match is None:
            continue
        quantizer = (without_wrappers(match["module"] + ".").rstrip("."), match["quantizer"])
        if quantizer in keys:
            raise CalibrationError(
                f"The checkpoint holds one quantizer twice, as {keys[quantizer]} and as {key}. Remove one of "
                "the two from the state dict."
            )
        keys[quantizer] = key
    return keys


def _find_place(
    quantizers: Mapping[tuple[str, ...], _Keys],
    found: list[Layer],
    chosen: Mapping[str, str],
    prefix: str | None,
) -> Place:
    """Where all int8 convolutions have quantizers; or the nearest place, whose lacks are then named."""
    names = [layer.name for layer in found if layer.spec.weighted]
    needed = [name for name in names if chosen[name] == "int8"] or names
    modules = {
        path: [module for module, quantizer in keys if quantizer == "input"]
        for path, keys in quantizers.items()
    }
    places = find_places(modules, names)
    place = choose_place(
        places,
        lambda place: all(name in place.keys for name in needed),
        prefix=prefix,
        source="The checkpoint",
        option="prefix=...",
    )
    if place is not None:
        return place
    if prefix is not None:
        near = [p for p in places if prefix.rstrip(".") in (p.label.rstrip("."), p.prefix.rstrip("."))]
        return near[0] if near else Place(next(iter(quantizers)), prefix, {})
    if not places:
        some = ", ".join([key for keys in quantizers.values() for key in keys.values()][:3])
        raise CalibrationError(
            f"No quantizer of the checkpoint belongs to a layer of the graph: layers are "
            f"{', '.join(names[:3])}, ...; keys are {some}, ... Pass state_dict with the graph's own module "
            "names."
        )
    return max(places, key=lambda place: len(place.keys))


def _wanted_keys(
    layer: Layer, prefix: str, keys: Mapping[tuple[str, str], str]
) -> list[tuple[str, str | None]]:
    """For each range of a layer, the key as one would write it and the checkpoint's key (None if absent)."""
    if layer.spec.weighted:
        module = prefix + layer.name
        return [(f"{module}._{q}_quantizer._amax", keys.get((module, q))) for q in ("input", "weight")]
    block = prefix + layer.name.rpartition(".")[0]
    start = f"{block}." if block and not block.endswith(".") else block
    children = sorted(
        {
            module
            for module, _ in keys
            if module.startswith(start)
            and layer.spec.suffix in module[len(start) :].lower()
            and "." not in module[len(start) :]
        }
    )
    exact = prefix + layer.name
    if exact in children:
        children = [exact]
    if len(children) > 1:
        raise CalibrationError(
            f"{layer.name}: several quantised modules could be this Add: {', '.join(children)}. Rename all "
            "but one in the checkpoint's keys."
        )
    module = children[0] if children else f"{start}quant_add"
    shared = keys.get((module, "input"))
    if shared is not None:
        return [(shared, shared), (shared, shared)]
    if not children:
        return [(f"{module}._input_quantizer._amax", None)]
    return [(f"{module}._{q}_quantizer._amax", keys.get((module, q))) for q in ("input0", "input1")]


def _layer_ranges(layer: Layer, present: list[str], state: Mapping[str, Any], prefix: str) -> LayerRanges:
    if layer.spec.adds:
        return LayerRanges(tuple(_scalar(state, key) for key in present))
    weight = rounded_weight(layer)
    amax = _per_channel(layer, weight, present[1], state, prefix)
    largest = weight.abs().amax(dim=(1, 2, 3, 4)).cpu()
    dead = (amax == 0) & (largest > 0)
    if bool(dead.any()):
        raise CalibrationError(
            f"{present[1]}: the range of output channel {int(dead.nonzero()[0])} is zero, but its weights "
            "are not."
        )
    return LayerRanges((_scalar(state, present[0]),), weight_ranges(layer, amax))


def _tensor(state: Mapping[str, Any], key: str) -> torch.Tensor:
    """The value of a quantizer as a real tensor."""
    try:
        value = torch.as_tensor(state[key]).detach()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # numbers beyond int64, texts
        raise CalibrationError(f"{key}: expected a range, got what is no tensor: {error}.") from error
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        raise CalibrationError(f"{key}: expected plain real numbers, got {value.dtype} ({value.layout}).")
    return value


def _scalar(state: Mapping[str, Any], key: str) -> float:
    value = _tensor(state, key)
    if value.numel() != 1:
        raise CalibrationError(
            f"{key}: an input has one range, got {list(value.shape)}. Inputs must be quantised per tensor."
        )
    return checked_range(float(value), key)


def _per_channel(
    layer: Layer, weight: torch.Tensor, key: str, state: Mapping[str, Any], prefix: str
) -> torch.Tensor:
    """Weight ranges as float32 [out]: from one per output channel, or one for the whole weight."""
    value = _tensor(state, key)
    out = weight.shape[0]
    if value.numel() == 1:
        return value.float().cpu().flatten().expand(out).clone()
    stored = state.get(f"{prefix}{layer.name}.weight")
    # spconv 1.x keeps [kz, ky, kx, in, out], spconv 2.x [out, kz, ky, kx, in]: in the latter the last axis is
    # `in`.
    last_axis = value.dim() == 5 and value.shape[-1] == value.numel()
    per_input = last_axis and stored is not None and tuple(stored.shape) == tuple(weight.shape)
    if value.numel() != out or per_input:
        is_input = per_input or value.numel() == weight.shape[-1]
        raise CalibrationError(
            f"{key}: expected one range per output channel ({out}) or one in all, got {list(value.shape)}"
            f"{', which is one per input channel' if is_input else ''}. "
            "Calibrate the weight with axis=0 in spconv 2.x's layout [out, kz, ky, kx, in]."
        )
    value = value.float().cpu()
    if not bool(value.isfinite().all()) or bool((value < 0).any()):
        raise CalibrationError(f"{key}: ranges must be finite and not negative.")
    return value.flatten()
