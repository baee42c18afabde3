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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from quant.precision import PrecisionSpec, default_precisions, output_precisions, resolve, write_precisions
from quant.ranges import LayerRanges, checked_range, quantizable, rounded_weight, weight_ranges, write_ranges
from scn_fx.errors import CalibrationError
from scn_fx.graph import Layer

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["ImportReport", "load_pytorch_quantization"]

_KEY = re.compile(r"^(?P<module>.+?)\._?(?P<quantizer>input|input0|input1|weight)_quantizer\._amax$")

# A weight this much larger than its range was hardly calibrated together with it.
_SUSPICIOUS = 2.0


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
    state_dict: Mapping[str, Any],
    *,
    prefix: str | None = None,
    precision: PrecisionSpec = None,
) -> ImportReport:
    """Take the ranges of `graph` from a checkpoint made with pytorch-quantization or modelopt.

    Args:
        graph: a graph captured from the same model, its BatchNorms folded as in the checkpoint.
        state_dict: name -> tensor, or a checkpoint that holds one under "state_dict" or "model_state".
        prefix: what precedes the graph's layer names in the keys ("backbone."); None finds it.
        precision: overrides on the default precisions, see `quant.set_precision`. A layer may lack ranges
            only if it is not int8.

    Warns (UserWarning) where a weight is much larger than its range. Raises CalibrationError, leaving the
    graph as it was, if no key fits, keys of an int8 layer are missing, a range is not positive, or sizes do
    not agree.
    """
    state = _unwrap(state_dict)
    keys = {
        (match["module"], match["quantizer"]): key
        for key in state
        if isinstance(key, str) and (match := _KEY.match(key))
    }
    if not keys:
        raise CalibrationError(
            f"The checkpoint holds no quantizer ranges: none of its {len(state)} keys ends in "
            "'_input_quantizer._amax' or '_weight_quantizer._amax'. Was it saved after calibration?"
        )
    found = quantizable(graph)
    prefix = _find_prefix(keys, found) if prefix is None else prefix
    chosen = resolve(graph, precision, default_precisions(graph))
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
    write_ranges(graph, ranges, "checkpoint", 0)
    write_precisions(graph, chosen, output_precisions(graph, chosen))
    return ImportReport(prefix, tuple(dict.fromkeys(used)), unused, tuple(missing))


def _unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("state_dict", "model_state"):
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping):
            return inner
    return checkpoint


def _find_prefix(keys: Mapping[tuple[str, str], str], found: list[Layer]) -> str:
    """The prefix under which most of the graph's convolutions have quantizers."""
    votes: dict[str, int] = {}
    for layer in found:
        for module, quantizer in keys:
            if quantizer == "input" and (module == layer.name or module.endswith("." + layer.name)):
                candidate = module[: len(module) - len(layer.name)]
                votes[candidate] = votes.get(candidate, 0) + 1
    best = [prefix for prefix, count in votes.items() if count == max(votes.values())]
    if len(best) == 1:
        return best[0]
    names = ", ".join(layer.name for layer in found[:3])
    if not best:
        some = ", ".join(list(keys.values())[:3])
        raise CalibrationError(
            f"No quantizer of the checkpoint belongs to a layer of the graph: layers are {names}, ...; keys "
            f"are {some}, ... Pass state_dict with the graph's own module names."
        )
    raise CalibrationError(
        f"The graph's layers ({names}, ...) are in the checkpoint under several prefixes: "
        f"{', '.join(map(repr, best))}. Choose one with prefix=..."
    )


def _wanted_keys(
    layer: Layer, prefix: str, keys: Mapping[tuple[str, str], str]
) -> list[tuple[str, str | None]]:
    """For each range of a layer, the key as one would write it and the checkpoint's key (None if absent)."""
    if layer.kind == "convolution":
        module = prefix + layer.name
        return [(f"{module}._{q}_quantizer._amax", keys.get((module, q))) for q in ("input", "weight")]
    block = prefix + layer.name.rpartition(".")[0]
    start = f"{block}." if block and not block.endswith(".") else block
    children = sorted(
        {
            module
            for module, _ in keys
            if module.startswith(start)
            and "add" in module[len(start) :].lower()
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
    if layer.kind == "add":
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
    ratio = float((largest / amax.clamp_min(torch.finfo(torch.float32).tiny)).max())
    if ratio > _SUSPICIOUS:
        warnings.warn(
            f"{layer.name}: weights are up to {ratio:.3g} times their range in the checkpoint and will be "
            "clipped. Was the checkpoint calibrated before its BatchNorms were folded, or with other "
            "weights?",
            stacklevel=3,
        )
    return LayerRanges((_scalar(state, present[0]),), weight_ranges(layer, amax))


def _scalar(state: Mapping[str, Any], key: str) -> float:
    value = torch.as_tensor(state[key])
    if value.numel() != 1:
        raise CalibrationError(
            f"{key}: an input has one range, got {list(value.shape)}. Inputs must be quantised per tensor."
        )
    return checked_range(float(value), key)


def _per_channel(
    layer: Layer, weight: torch.Tensor, key: str, state: Mapping[str, Any], prefix: str
) -> torch.Tensor:
    """Weight ranges as float32 [out]: from one per output channel, or one for the whole weight."""
    value = torch.as_tensor(state[key]).detach().float().cpu()
    out = weight.shape[0]
    if value.numel() == 1:
        return value.flatten().expand(out).clone()
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
    if not bool(value.isfinite().all()) or bool((value < 0).any()):
        raise CalibrationError(f"{key}: ranges must be finite and not negative.")
    return value.flatten()
