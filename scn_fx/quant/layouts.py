# SPDX-License-Identifier: Apache-2.0
"""The orders in which versions of spconv keep a weight, and which of them a checkpoint has.

spconv's own names: K is the output channel, R and S (and so on) the kernel's axes, C the input channel.

- KRSC, [out, kz, ky, kx, in]: spconv 2.x, and every module that scn-fx captures;
- RSCK, [kz, ky, kx, in, out]: spconv 1.x and mmcv's copy of it;
- RSKC, [kz, ky, kx, out, in]: spconv 2.0 and 2.1 with the Native algorithm.

A layer of one offset that spconv computes as a matrix product (`conv1x1`) is special: every version
multiplies by `weight.view(in, out)`, whatever shape it stores. Its numbers keep their order in memory, and
only the shape changes; a permutation would scramble them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from scn_fx.errors import CalibrationError

__all__ = ["LAYOUTS", "convolutions", "in_module_layout", "layout_of"]

LAYOUTS: Mapping[str, str] = {
    "KRSC": "[out, kz, ky, kx, in] (spconv 2.x)",
    "RSCK": "[kz, ky, kx, in, out] (spconv 1.x)",
    "RSKC": "[kz, ky, kx, out, in] (spconv 2.0 and 2.1, Native)",
}
"""Names of layouts, and what people call them."""


def convolutions(module: nn.Module) -> dict[str, nn.Module]:
    """The spconv convolutions of `module`, by the names of their weights in its state dict."""
    return {
        f"{name}.weight" if name else "weight": child
        for name, child in module.named_modules(remove_duplicate=False)
        if hasattr(child, "conv1x1") and hasattr(child, "indice_key") and hasattr(child, "weight")
    }


def _shape(layout: str, weight: torch.Tensor) -> tuple[int, ...]:
    """Shape in `layout` of a weight that is [out, kernel..., in] in the module."""
    out, *kernel, inner = weight.shape
    shapes = {"KRSC": (out, *kernel, inner), "RSCK": (*kernel, inner, out), "RSKC": (*kernel, out, inner)}
    return shapes[layout]


def in_module_layout(value: torch.Tensor, layout: str, convolution: nn.Module) -> torch.Tensor:
    """A weight of `layout` as [out, kernel..., in], the layout of the module that takes it."""
    if bool(convolution.conv1x1):
        return value.reshape(_weight(convolution).shape)
    axes = tuple(range(value.dim() - 2))
    last = value.dim() - 1
    if layout == "RSCK":
        return value.permute(last, *axes, last - 1)
    return value.permute(last - 1, *axes, last) if layout == "RSKC" else value


def layout_of(
    values: Mapping[str, torch.Tensor],
    found: Mapping[str, nn.Module],
    *,
    source: str,
    asked: str | None,
    option: str,
) -> str:
    """The one layout of all weights in `values`, each for the convolution of the same name in `found`.

    One file has one layout, so a single layer whose shape decides is enough for all. Raises CalibrationError
    if a weight has the wrong channels, layers disagree, or no shape decides between layouts that would give
    different numbers: then both readings are named, and `asked` (the user's word, given by `option`) decides.
    """
    if asked is not None and asked not in LAYOUTS:
        raise CalibrationError(f"Unknown weight layout {asked!r}; expected one of {', '.join(LAYOUTS)}.")
    fitting = {
        name: [
            layout for layout in LAYOUTS if _shape(layout, _weight(found[name])) == tuple(values[name].shape)
        ]
        for name in values
    }
    for name, layouts in fitting.items():
        if not layouts or (asked is not None and asked not in layouts):
            raise CalibrationError(
                f"{source}: {name} must be {_readings(found[name], asked)}, got {list(values[name].shape)}. "
                + (
                    "Its layout is another one."
                    if layouts
                    else "Channels or kernel differ: the model is not the one that was trained."
                )
            )
    if asked is not None:
        return asked
    common = [layout for layout in LAYOUTS if all(layout in layouts for layouts in fitting.values())]
    if not common:
        decided = {layouts[0]: name for name, layouts in fitting.items() if len(layouts) == 1}
        examples = "; ".join(f"{name} is {LAYOUTS[layout]}" for layout, name in decided.items())
        raise CalibrationError(
            f"{source} mixes weight layouts: {examples}. One file must have one layout; save the weights "
            "anew."
        )
    different = [
        layout
        for layout in common[1:]
        if any(
            not torch.equal(
                in_module_layout(values[name], layout, found[name]),
                in_module_layout(values[name], common[0], found[name]),
            )
            for name in values
        )
    ]
    if not different:
        return common[0]
    name = next(iter(values))
    raise CalibrationError(
        f"{source}: the shapes of the weights fit several layouts, which give different networks: "
        f"{', '.join(f'{layout} {LAYOUTS[layout]}' for layout in (common[0], *different))}. {name} is "
        f"{list(values[name].shape)} in each. Say which one it is with {option}."
    )


def _readings(convolution: nn.Module, asked: str | None) -> str:
    weight = _weight(convolution)
    layouts = LAYOUTS if asked is None else (asked,)
    return " or ".join(f"{list(_shape(layout, weight))} in {LAYOUTS[layout]}" for layout in layouts)


def _weight(convolution: nn.Module) -> torch.Tensor:
    weight: Any = convolution.weight
    assert isinstance(weight, torch.Tensor)
    return weight
