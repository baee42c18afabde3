# SPDX-License-Identifier: Apache-2.0
"""What spconv itself computes on the CPU, and statistics for networks without trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from scn_fx.capture import run_with_own_operators
from scn_fx.ops.sites import lifted_sites

__all__ = ["chosen", "eager_difference", "spconv_is_reliable", "take_statistics"]


@contextmanager
def spconv_is_reliable(model: nn.Module) -> Iterator[None]:
    """One thread, and biases added behind the layers: what the CPU build of spconv 2.3.8 needs.

    Its strided convolutions add into shared rows from several threads without synchronisation, and its
    convolutions refuse a bias. Models written for spconv 1.x may set `features`, as they could there.
    """
    import spconv.pytorch as spconv

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    biases: list[tuple[Any, nn.Parameter]] = []
    hooks = []
    for module in model.modules():
        if isinstance(module, spconv.conv.SparseConvolution) and module.bias is not None:
            bias = module.bias
            biases.append((module, bias))
            module.bias = None
            hooks.append(module.register_forward_hook(_adding(bias)))
    features = spconv.SparseConvTensor.features
    spconv.SparseConvTensor.features = property(features.fget, _set_features)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)
        spconv.SparseConvTensor.features = features
        for hook in hooks:
            hook.remove()
        for module, bias in biases:
            module.bias = bias


@contextmanager
def _given_grid(options: Mapping[str, Any]) -> Iterator[None]:
    """The grid and batch size that capture was given, in the first sparse tensor that a forward makes.

    A network that takes the grid from the frame has other sites at its border than one on the whole grid.
    """
    import spconv.pytorch as spconv

    shape = options.get("spatial_shape")
    given = [None if shape is None else list(shape), options.get("batch_size")]
    original = spconv.SparseConvTensor.__init__

    def made(
        self: Any, features: Any, indices: Any, spatial_shape: Any, batch_size: Any, *more: Any, **named: Any
    ) -> None:
        spatial_shape, batch_size = given[0] or spatial_shape, given[1] or batch_size
        given[:] = None, None
        original(self, features, indices, spatial_shape, batch_size, *more, **named)

    spconv.SparseConvTensor.__init__ = made
    try:
        yield
    finally:
        spconv.SparseConvTensor.__init__ = original


def _set_features(tensor: Any, features: torch.Tensor) -> None:
    tensor._features = features


def _adding(bias: torch.Tensor) -> Any:
    return lambda module, args, result: result.replace_feature(result.features + bias)


def eager_difference(
    graph: fx.GraphModule,
    frame: Sequence[torch.Tensor],
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    output: Any,
    options: Mapping[str, Any] | None = None,
) -> float:
    """Largest difference of a float graph from spconv on the CPU, relative to spconv's largest value.

    `options` are those of the capture.
    """
    with spconv_is_reliable(model):
        given, named = fresh(args), fresh(dict(kwargs or {}))
        with _given_grid(options or {}):
            expected = chosen(model(*given, **named), output)
        found = graph(*frame)
    if not isinstance(expected, torch.Tensor):
        # merged sites keep the axes that a forward leaves out
        wide = found[1].shape[1] > expected.indices.shape[1]
        indices = lifted_sites(expected.indices) if wide else expected.indices
        wanted, sites = _ordered(expected.features, indices)
        values, rows = _ordered(*found)
        if not torch.equal(rows.long(), sites.long()):
            raise AssertionError("the graph has other sites than spconv")
    else:
        wanted, values = expected, found[0] if isinstance(found, tuple) else found
    if wanted.shape != values.shape:
        raise AssertionError(f"the graph gives {list(values.shape)}, spconv {list(wanted.shape)}")
    return float((values - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


def chosen(result: Any, output: Any) -> Any:
    """What the path `output` of indices and keys leads to in a model's result."""
    path = output if isinstance(output, tuple) else (output,)
    single = not isinstance(result, Mapping | list | tuple) and path == (0,)
    for step in () if single else path:
        result = result[step]
    return result


def _ordered(features: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in ascending order of their indices."""
    order = torch.arange(len(indices))
    for column in reversed(range(indices.shape[1])):
        order = order[indices[order, column].sort(stable=True).indices]
    return features[order], indices[order]


def fresh(value: Any) -> Any:
    """Arguments anew: a forward may write into its batch dictionary, its tensors, its sparse tensors."""
    import spconv.pytorch as spconv

    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, spconv.SparseConvTensor):
        parts = value.features.clone(), value.indices.clone()
        return spconv.SparseConvTensor(*parts, list(value.spatial_shape), value.batch_size)
    if isinstance(value, dict):
        return type(value)((key, fresh(part)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return type(value)(fresh(part) for part in value)
    return value


def take_statistics(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> bool:
    """Give every BatchNorm the statistics of one frame (in place); False where the forward does not run.

    Without them a network with fresh weights shrinks or explodes on its way through the layers. `options`
    are those of the capture.
    """
    norms: list[Any] = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    kept = [(m, m.momentum) for m in norms]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in norms:
            if norm.affine:
                norm.weight.uniform_(0.6, 1.4, generator=generator)
                norm.bias.normal_(0.0, 0.2, generator=generator)
    try:
        for norm in norms:
            norm.training, norm.momentum = True, 1.0
        given, named = fresh(args), fresh(dict(kwargs or {}))
        with torch.no_grad(), _given_grid(options or {}):
            run_with_own_operators(model, *given, **named)
        for norm in norms:
            norm.running_var.clamp_(min=1e-2)  # a level with few sites must not amplify rounding
        return True
    except Exception:
        return False
    finally:
        for norm, momentum in kept:
            norm.training, norm.momentum = False, momentum
