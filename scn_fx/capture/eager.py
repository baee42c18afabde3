# SPDX-License-Identifier: Apache-2.0
"""Run an spconv model with the operators of scn-fx without capturing it: for training, for comparisons."""

from __future__ import annotations

from typing import Any

from torch import nn

from scn_fx.capture.redirect import redirected
from scn_fx.capture.tracing import Tracing
from scn_fx.errors import ArgumentError

__all__ = ["run_with_own_operators"]


def run_with_own_operators(model: nn.Module, *args: Any, output_bound: int = 4_000_000, **kwargs: Any) -> Any:
    """What `model` gives for the arguments, its spconv layers computed by the operators of scn-fx.

    The model stays as it is, in training or evaluation mode, on any device that the operators have kernels
    for; gradients flow into its parameters, so it can be trained where spconv itself has no kernels (spconv's
    CPU build has no bias and no CUDA). Layers follow spconv's rules as in a capture, and layers that capture
    refuses are refused here.

    Args:
        model: an unmodified model of spconv 2.x.
        *args: of its forward, and **kwargs.
        output_bound: most sites that any layer may have.

    Raises:
        CaptureError: the model contains a layer that the operators do not express.
        BoundError: a layer has more than `output_bound` sites.
        ArgumentError: `output_bound` is no positive whole number.
    """
    if isinstance(output_bound, bool) or not isinstance(output_bound, int) or output_bound < 1:
        raise ArgumentError(f"output_bound is a number of sites >= 1, got {output_bound!r}.")
    # The state of one forward: names of layers and maps of its sites are not those of the next.
    with redirected(Tracing(model, output_bound=output_bound, axes="zyx")):
        return model(*args, **kwargs)
