# SPDX-License-Identifier: Apache-2.0
"""Fold a BatchNorm into the convolution before it."""

from __future__ import annotations

import torch
from torch import fx

from scn_fx.errors import CaptureError
from scn_fx.graph import argument, operator_spec
from scn_fx.operators.activations import NO_ACTIVATION
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["FoldBatchNorm", "folded"]


def folded(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    gamma: torch.Tensor | None,
    beta: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [out, kz, ky, kx, in] and bias [out] of a convolution that includes its BatchNorm.

    With s = gamma / sqrt(variance + eps), one factor per output channel::

        gamma · (W*x + b - mean) / sqrt(variance + eps) + beta  =  (s·W)*x + (b - mean)·s + beta

    Without affine parameters gamma is 1 and beta 0; without a bias b is 0. Computed in float64 and rounded
    once to the dtype of the weight, so the fold itself costs half a unit in the last place.
    """

    def wide(value: torch.Tensor | None, default: float) -> torch.Tensor:
        return torch.full_like(variance, default, dtype=torch.float64) if value is None else value.double()

    scale = wide(gamma, 1.0) / torch.sqrt(variance.double() + eps)
    new_weight = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    new_bias = (wide(bias, 0.0) - mean.double()) * scale + wide(beta, 0.0)
    return new_weight.to(weight.dtype), new_bias.to(weight.dtype)


class FoldBatchNorm(GraphPass):
    """`batch_norm(convolution(x))` becomes one convolution with other weights (see `folded`).

    It applies where the BatchNorm is the only reader of a convolution without activation; the others are left
    to `LowerChannelMaps`. The convolution gets parameters of its own, so a weight that another layer uses as
    well stays what it was for that layer.
    """

    def requires(self, graph: fx.GraphModule) -> None:
        for node in graph.graph.nodes:
            if nodes.aten_name(node) == "batch_norm" and nodes.argument(node, "training"):
                raise CaptureError(
                    f"{nodes.where(node)} normalises with the statistics of the frame: it is in training "
                    "mode or has no running statistics. Call model.eval(), and keep "
                    "track_running_stats=True."
                )

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in list(graph.graph.nodes):
            if nodes.aten_name(node) == "batch_norm":
                conv = node.args[0]
                if isinstance(conv, fx.Node) and _folds(conv):
                    reason = self._fold(graph, node, conv)
                    if reason is None:
                        modified = True
                    else:
                        self.refuse(node, reason)
        return modified

    def _fold(self, graph: fx.GraphModule, norm: fx.Node, conv: fx.Node) -> str | None:
        """Fold `norm` and return None, or return why not."""
        read = {n: nodes.argument(norm, n) for n in ("weight", "bias", "running_mean", "running_var")}
        values = {n: nodes.attribute(graph, v) for n, v in read.items()}
        if any(values[n] is None and read[n] is not None for n in read):
            return "its parameters are computed by the model rather than stored"
        mean, variance = values["running_mean"], values["running_var"]
        weight = nodes.attribute(graph, conv.args[1])
        bias = nodes.attribute(graph, conv.args[2])
        if weight is None or (bias is None and conv.args[2] is not None):
            return f"the weights of the convolution {conv.kwargs['name']!r} are computed by the model"
        if mean is None or variance is None:
            return "it has no running statistics"

        eps = float(nodes.argument(norm, "eps"))
        new_weight, new_bias = folded(weight, bias, mean, variance, values["weight"], values["bias"], eps)
        if not bool(torch.isfinite(new_weight).all() and torch.isfinite(new_bias).all()):
            return "its statistics or parameters are not finite, or a variance is negative"

        conv.update_arg(1, nodes.new_attribute(graph, conv, "folded_weight", new_weight))
        conv.update_arg(2, nodes.new_attribute(graph, conv, "folded_bias", new_bias))
        norm.replace_all_uses_with(conv)
        graph.graph.erase_node(norm)
        return None


def _folds(conv: fx.Node) -> bool:
    """Whether a value is a convolution without activation that one node reads."""
    spec = operator_spec(conv)
    alone = spec is not None and spec.weighted and len(conv.users) == 1
    return alone and argument(conv, "activation") == NO_ACTIVATION
