# SPDX-License-Identifier: Apache-2.0
"""Random weights that keep the variance of the activations, from the first layer to the last.

A network with fresh weights shrinks or explodes over 21 sparse layers, because the number of neighbours of a
site is far from the number of kernel offsets. Scaling layer by layer with a frame (as LSUV does: Mishkin and
Matas, "All you need is a good init", ICLR 2016) gives activations of a trained network's size, without
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from scn_fx.capture.arguments import Arguments
from scn_fx.capture.export import exported_graph
from scn_fx.capture.outputs import output_paths
from scn_fx.capture.tracing import Tracing
from scn_fx.passes import DropChecks, DropCopies, FoldConstants, Functionalise, GraphPass, run_passes
from scn_fx.passes.nodes import aten_name
from scn_fx.zoo.centerpoint import CenterPointEncoder

__all__ = ["demo_frame", "demo_model", "randomise_weights", "scale_weights"]


def demo_model(
    seed: int = 0,
    frame: tuple[torch.Tensor, torch.Tensor] | None = None,
    *,
    channels: Sequence[int] = (16, 32, 64, 128),
    grid: Sequence[int] = (1440, 1440, 40),
) -> CenterPointEncoder:
    """A CenterPoint encoder in evaluation mode, with random weights scaled to a frame.

    Args:
        seed: chooses the weights; equal seeds and frames give equal models.
        frame: features float32 [N, C] and indices int32 [N, 4] (batch, z, y, x); `demo_frame` by default.
        channels: width of the four levels.
        grid: voxels along (x, y, z).
    """
    features, indices = frame if frame is not None else demo_frame(seed, grid=grid)
    model = CenterPointEncoder(int(features.shape[1]), channels, grid=grid)
    randomise_weights(model, features, indices, seed)
    return model


def demo_frame(
    seed: int = 0, voxels: int = 4000, *, grid: Sequence[int] = (1440, 1440, 40), in_channels: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """A small frame of surfaces around the middle of a grid: about `voxels` sites of a ground and two walls.

    Stands in where no LiDAR frame is at hand; `scn_fx.lidar` makes realistic ones. Returns features float32
    [N, in_channels] (coordinates in 0.1 voxels, the rest uniform in 0…1) and indices int32 [N, 4].
    """
    generator = torch.Generator().manual_seed(seed)
    nx, ny, nz = (int(n) for n in grid)
    half = max(2, min(nx // 2, ny // 2, int(voxels**0.5 * 0.6)))
    span = torch.arange(-half, half)
    y, x = torch.meshgrid(span, span, indexing="ij")
    x, y = x.flatten() + nx // 2, y.flatten() + ny // 2
    ground = torch.stack([(nz // 8 + ((x + 2 * y) % 97) // 48).clamp(0, nz), y, x], 1)
    height = torch.arange(nz // 8, max(nz // 8 + 1, nz // 2))
    z, along = torch.meshgrid(height, span, indexing="ij")
    z, along = z.flatten(), along.flatten()
    walls = [
        torch.stack([z, along + ny // 2, torch.full_like(z, nx // 2 + half // 2)], 1),
        torch.stack([z, torch.full_like(z, ny // 2 - half // 3), along + nx // 2], 1),
    ]
    sites = torch.unique(torch.cat([ground, *walls]), dim=0)
    keep = torch.rand(len(sites), generator=generator) < min(1.0, voxels / len(sites))
    sites = sites[keep]
    indices = torch.cat([torch.zeros_like(sites[:, :1]), sites], 1).int()
    middle = torch.tensor([nx // 2, ny // 2, nz // 8])
    places = (sites.flip(1) - middle) * 0.1
    rest = torch.rand(len(sites), max(0, in_channels - 3), generator=generator)
    features = torch.cat([places[:, : min(3, in_channels)].float(), rest], 1)
    return features, indices


_NEIGHBOURS = 0.3
"""Size of a kernel's other taps beside its central one.

The number of neighbours of a site varies from 1 to 27. Were all taps of one size, crowded places would have
activations many times those of lonely ones, as no trained network has.
"""

_BRANCH = 0.3
"""Factor of a residual branch beside its identity: trained networks change features little by little."""


def randomise_weights(model: nn.Module, features: torch.Tensor, indices: torch.Tensor, seed: int = 0) -> None:
    """Random weights for a model of this package, scaled with a frame (in place, and in evaluation mode).

    He-normal kernels with a strong centre, BatchNorm factors around 1, small biases, residual branches of
    moderate size; the first kernel sees every column of the features at its own scale. Then `scale_weights`.

    Args:
        model: an encoder of this package.
        features: float32 [N, C].
        indices: int32 [N, 4], or [N, 3] of a 2D model.
        seed: equal seeds and frames give equal weights.
    """
    generator = torch.Generator().manual_seed(seed)
    columns = _rounded(features.double().std(0, unbiased=False)).clamp(min=1e-3).float()
    with torch.no_grad():
        first = True
        for name, module in model.named_modules():
            weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
            if isinstance(module, nn.BatchNorm1d):
                module.weight.uniform_(0.6, 1.4, generator=generator)
                module.bias.normal_(0.0, 0.2, generator=generator)
                if name.endswith("bn2"):
                    module.weight.mul_(_BRANCH)
            elif isinstance(weight, torch.Tensor) and weight.dim() >= 3:
                weight.normal_(0.0, (2.0 / weight[0].numel()) ** 0.5, generator=generator)
                _strengthen_centre(weight)
                if first:
                    weight.div_(columns)
                    first = False
                if isinstance(bias, torch.Tensor):
                    bias.normal_(0.0, 0.1, generator=generator)
    model.eval()
    scale_weights(model, features, indices)


def _strengthen_centre(weight: torch.Tensor) -> None:
    """Shrink all taps of a kernel [out, kz, ky, kx, in] (or of fewer axes) but the central one, if any."""
    size = weight.shape[1:-1]
    if all(n % 2 == 1 for n in size) and max(size) > 1:
        middle: Any = (slice(None), *(n // 2 for n in size))
        centre = weight[middle].clone()
        weight.mul_(_NEIGHBOURS)
        weight[middle] = centre


def scale_weights(model: nn.Module, features: torch.Tensor, indices: torch.Tensor) -> None:
    """Set the running statistics of every BatchNorm of `model` from a frame, first layer first (in place).

    Each layer sees its input as the scaled layers before it make it, so one pass over the frame is enough.
    The kernels of scn-fx do it: spconv's CPU build has no bias. `model` is an encoder of this package, or
    any model with a method ``arguments(features, indices)`` that returns the arguments of its forward; its
    attribute ``main_output`` (0 by default) names the output that all of its layers lead to.

    The statistics are rounded to 8 significant bits, so that machines whose sums differ in the last bits
    still get one and the same model.

    Args:
        model: in evaluation mode.
        features: float32 [N, C].
        indices: int32 [N, 4], or [N, 3] of a 2D model.
    """
    inputs = Arguments.of(model, model.arguments(features, indices))  # type: ignore[operator]
    paths = output_paths(getattr(model, "main_output", 0))
    bound = max(4 * len(indices), 200_000)
    graph = exported_graph(model, inputs, paths, Tracing(model, output_bound=bound, axes="zyx"))
    passes: list[GraphPass] = [Functionalise(), DropChecks(), DropCopies(), FoldConstants()]
    run_passes(graph, passes)
    graph.graph.eliminate_dead_code()
    with torch.no_grad():
        _Scaling(graph, model).run(*inputs.tensors)


class _Scaling(fx.Interpreter):
    """Runs a graph; a BatchNorm takes the statistics of its input before it normalises."""

    def __init__(self, graph: fx.GraphModule, model: nn.Module) -> None:
        super().__init__(graph)
        self._model = model

    def run_node(self, node: fx.Node) -> Any:
        if aten_name(node) != "batch_norm":
            return super().run_node(node)
        args, _ = self.fetch_args_kwargs_from_env(node)
        values, gamma, beta, mean, variance = args[:5]
        if len(values) >= 2:
            wide = values.double()
            mean.copy_(_rounded(wide.mean(0)))
            variance.copy_(_rounded(wide.var(0, unbiased=False)).clamp(min=1e-4))
        return nn.functional.batch_norm(values, mean, variance, gamma, beta, eps=float(args[7]))


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """Rounded to 8 significant bits."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 256) / 256, exponent)
