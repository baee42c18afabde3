# SPDX-License-Identifier: Apache-2.0
"""What an spconv convolution does while it is captured: its own rules, with operators a graph can hold."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.capture.packages import spconv
from scn_fx.capture.tracing import KernelMap, Tracing, same_tensor
from scn_fx.capture.unsupported import stand_in
from scn_fx.dimensions import DIMENSIONS, lifted, narrowed
from scn_fx.errors import BoundError, CaptureError, ScnError
from scn_fx.geometry import ConvGeometry
from scn_fx.operators.activations import activation_of_spconv, real_activations

__all__ = ["check_batch_size", "check_sites", "convolve", "new_map"]


def convolve(
    tracing: Tracing, module: Any, tensor: Any, weight: Any, bias: Any, activation: str, alpha: float = 0.0
) -> Any:
    """What `module._conv_forward` gives for a SparseConvTensor while it is captured, as a SparseConvTensor.

    Follows spconv's rules (`spconv/pytorch/conv.py`, 2.3.8): which layers may share an `indice_key`, what an
    inverse convolution needs, and when a kernel of one offset is a matrix product. A layer that cannot be
    captured gives a stand-in, which is an error only if the chosen output depends on it.

    Args:
        tracing: the capture in progress.
        module: the layer; its geometry counts, its own weight does not.
        tensor: the SparseConvTensor that it reads.
        weight: [out, kz, ky, kx, in], or without the axes that the layer lacks, as the layer hands it over: a
            class of the user's may have computed it.
        bias: [out] or None.
        activation: the fused activation by spconv's name ("None_", "ReLU", "Sigmoid", "LeakyReLU").
        alpha: its number, spconv's `act_alpha`.
    """
    try:
        _check(tracing, module, tensor, weight, bias, activation)
        return _convolution(tracing, module, tensor, weight, bias, activation, alpha)
    except CaptureError as error:
        return _not_captured(module, tensor, str(error))


def _convolution(
    tracing: Tracing, module: Any, tensor: Any, weight: Any, bias: Any, activation: str, alpha: float
) -> Any:
    name = tracing.layer_name(module)
    indice_dict = tensor.indice_dict
    fused = activation_of_spconv(activation)
    assert fused is not None
    if module.conv1x1 and isinstance(module, spconv().conv.SparseConvolutionBase):
        # spconv 2.x multiplies by weight.view(in, out) although the weight is stored [out, 1, 1, 1, in]: the
        # numbers are read in another order than elsewhere, and a trained model depends on it.
        weight = weight.view(module.in_channels, module.out_channels).t()
        weight = weight.reshape(module.out_channels, 1, 1, 1, module.in_channels)
    if module.conv1x1:
        kernel_map = _pointwise(tracing, module, tensor, name)
    elif module.inverse:
        kernel_map = _inverse(tracing, module, tensor, name)
    else:
        known = tensor.find_indice_pair(module.indice_key)
        if known is not None:
            kernel_map = _reused(tracing, module, tensor, known)
        else:
            kernel_map = new_map(tracing, module, tensor, name)
            if module.indice_key is not None:
                indice_dict = {**indice_dict, module.indice_key: kernel_map}
    if weight.dim() < 5:
        weight = weight.reshape(weight.shape[0], *lifted(weight.shape[1:-1], 1), weight.shape[-1])
    features = torch.ops.scn_fx.convolution.default(
        tensor.features,
        weight,
        bias,
        kernel_map.value,
        name=name,
        activation=fused.name,
        **fused.keywords(alpha),
    )
    result = tensor.shadow_copy().replace_feature(features)
    result.indices = kernel_map.out_indices
    result.indice_dict = indice_dict
    result.spatial_shape = narrowed(kernel_map.geometry.output_spatial_shape, module.ndim)
    return result


def _not_captured(module: Any, tensor: Any, reason: str) -> Any:
    """A stand-in for the layer's result: on the input's sites for a submanifold layer, else on new ones."""
    shape = list(tensor.spatial_shape)
    if not module.subm and module.ndim == len(shape):
        sizes = (shape, module.kernel_size, module.stride, module.padding, module.dilation)
        ops = spconv().ops
        if module.transposed:
            shape = ops.get_deconv_output_size(*sizes, module.output_padding)
        elif not module.inverse:
            shape = ops.get_conv_output_size(*sizes)
    return stand_in(tensor, reason, module.out_channels, shape, new_sites=not module.subm)


def check_sites(tracing: Tracing, module: Any, tensor: Any) -> None:
    """Refuse dimensions and batch sizes that the operators do not express, naming the layer."""
    layer = f"Layer {tracing.describe(module)}"
    if module.ndim not in DIMENSIONS:
        raise CaptureError(
            f"{layer} is a layer of {module.ndim} dimensions; layers of 1, 2 and 3 are supported, on "
            "indices [N, 2] to [N, 4] (batch, z, y, x). Use a 3D network with the fourth axis among the "
            "features (as the time lag of LiDAR sweeps is) or as samples of the batch, or end the captured "
            "part before it."
        )
    grid = list(tensor.spatial_shape)
    if len(grid) != module.ndim or tensor.indices.shape[1] != module.ndim + 1:
        raise CaptureError(
            f"{layer} is a layer of {module.ndim} dimension(s), but its input is a sparse tensor of "
            f"{len(grid)}: indices [N, {tensor.indices.shape[1]}] on a grid of {grid}. Give the sparse "
            f"tensor indices [N, {module.ndim + 1}] and a grid of {module.ndim} size(s)."
        )
    check_batch_size(layer, tensor)


def check_batch_size(layer: str, tensor: Any) -> None:
    """Refuse a batch size that cannot become a constant of the graph."""
    if isinstance(tensor.batch_size, torch.SymInt):
        raise CaptureError(
            f"{layer}: the batch size of its input is computed from the voxels' values or their number, "
            "which differ from frame to frame. A batch size must be a Python number among args, or given to "
            "capture: capture(…, batch_size=…)."
        )
    if isinstance(tensor.batch_size, bool) or not isinstance(tensor.batch_size, Integral):
        raise CaptureError(
            f"{layer}: the batch size of its input is a {type(tensor.batch_size).__name__}, not a Python "
            "integer. It becomes a constant of the graph: pass it as an int among args."
        )


def _check(tracing: Tracing, module: Any, tensor: Any, weight: Any, bias: Any, activation: str) -> None:
    """Refuse what the operators do not express, naming the layer."""
    check_sites(tracing, module, tensor)
    layer = f"Layer {tracing.describe(module)}"
    if module.groups != 1:
        raise CaptureError(f"{layer} has groups={module.groups}; only groups=1 is supported.")
    fused = activation_of_spconv(activation)
    if fused is None:
        known = [each.name for each in real_activations()]
        raise CaptureError(
            f"{layer} has act_type {activation}; only {', '.join(known)} and None_ are supported. "
            f"Train with {' or '.join(known)}, or end the captured part before the layer."
        )
    if module.conv1x1 and fused.operator:
        raise CaptureError(
            f"{layer} has act_type {activation}, which spconv ignores for a kernel of one offset. "
            "Apply nn.ReLU after the layer instead."
        )
    for what, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.dtype != torch.float32:
            raise CaptureError(
                f"{layer} has a {what} of {value.dtype}; capture needs float32: call model.float()."
            )
    expected = [module.out_channels, *module.kernel_size, module.in_channels]
    axes = ", ".join(("kz", "ky", "kx")[3 - module.ndim :])
    if list(weight.shape) != expected:
        raise CaptureError(
            f"{layer} has a weight of shape {list(weight.shape)}, expected [out, {axes}, in] = {expected}. "
            f"Weights of spconv 1.x are [{axes}, in, out]: load them with spconv 2.x's layout."
        )
    if not isinstance(tensor.features, torch.Tensor) or tensor.features.shape[1] != module.in_channels:
        raise CaptureError(
            f"{layer} expects features of {module.in_channels} channels, got {tuple(tensor.features.shape)}."
        )


def _pointwise(tracing: Tracing, module: Any, tensor: Any, name: str) -> KernelMap:
    """Map of a kernel of one offset: every site reads itself, whatever the layer's padding says."""
    if any(module.output_padding):
        raise CaptureError(
            f"Layer {tracing.describe(module)} has kernel 1 and output_padding {module.output_padding}; "
            "only 0 is supported."
        )
    geometry = ConvGeometry.submanifold(lifted(tensor.spatial_shape, 1), [1, 1, 1], [1, 1, 1])
    return _subm_map(tracing, tensor, geometry, name, tracing.rulebook(name))


def new_map(tracing: Tracing, module: Any, tensor: Any, name: str) -> KernelMap:
    """A new map of a convolution or pooling layer, remembered by the caller under its `indice_key`."""
    # An empty key shares as any other does, but a file needs a name for the map.
    stem = name if module.indice_key in (None, "") else str(module.indice_key)
    try:
        if module.subm:
            geometry = _submanifold_geometry(module, tensor.spatial_shape)
            return _subm_map(tracing, tensor, geometry, name, tracing.rulebook(stem))
        geometry = _strided_geometry(module, tensor.spatial_shape)
    except (CaptureError, BoundError):
        raise
    except ScnError as error:
        raise CaptureError(f"Layer {tracing.describe(module)}: {error}") from error
    known = tracing.strided(tensor.indices, geometry)
    if known is not None:
        return known
    rulebook = tracing.rulebook(stem)
    out_indices, value = torch.ops.scn_fx.conv_map.default(
        tensor.indices,
        name=name,
        batch_size=int(tensor.batch_size),
        input_spatial_shape=list(geometry.input_spatial_shape),
        output_spatial_shape=list(geometry.output_spatial_shape),
        kernel_size=list(geometry.kernel_size),
        stride=list(geometry.stride),
        padding=list(geometry.padding),
        dilation=list(geometry.dilation),
        transposed=geometry.transposed,
        output_padding=list(geometry.output_padding),
        rulebook=rulebook,
        output_bound=tracing.output_bound,
    )
    made = KernelMap(value, rulebook, geometry, tensor.indices, out_indices)
    tracing.remember(made)
    return made


def _submanifold_geometry(module: Any, shape: list[int]) -> ConvGeometry:
    kernel, dilation = lifted(module.kernel_size, 1), lifted(module.dilation, 1)
    return ConvGeometry.submanifold(lifted(shape, 1), kernel, dilation)


def _strided_geometry(module: Any, shape: list[int]) -> ConvGeometry:
    transposed = bool(getattr(module, "transposed", False))  # which pooling layers do not know
    geometry = ConvGeometry.strided(
        lifted(shape, 1),
        lifted(module.kernel_size, 1),
        lifted(module.stride, 1),
        lifted(module.padding, 0),
        lifted(module.dilation, 1),
        output_padding=lifted(module.output_padding, 0) if transposed else [0, 0, 0],
        transposed=transposed,
    )
    if transposed and max(geometry.dilation) > 1:
        # spconv leaves the dilation out of the output shape of a transposed convolution and drops what is
        # outside.
        raise ScnError("a transposed convolution with dilation > 1 is not supported; use dilation 1.")
    return geometry


def _subm_map(tracing: Tracing, tensor: Any, geometry: ConvGeometry, name: str, rulebook: str) -> KernelMap:
    value = torch.ops.scn_fx.subm_map.default(
        tensor.indices,
        name=name,
        batch_size=int(tensor.batch_size),
        spatial_shape=list(geometry.input_spatial_shape),
        kernel_size=list(geometry.kernel_size),
        dilation=list(geometry.dilation),
        rulebook=rulebook,
        output_bound=tracing.output_bound,
    )
    return KernelMap(value, rulebook, geometry, tensor.indices, tensor.indices)


def _reused(tracing: Tracing, module: Any, tensor: Any, known: KernelMap) -> KernelMap:
    """The map that another layer left under the same `indice_key`; only submanifold layers may share one."""
    layer, key = f"Layer {tracing.describe(module)}", module.indice_key
    if not module.subm or not known.geometry.subm:
        raise CaptureError(
            f"{layer} uses indice_key {key!r}, which another layer has taken. Only submanifold convolutions "
            "may share a key: give this layer a key of its own, or make it an inverse convolution."
        )
    wanted = _submanifold_geometry(module, tensor.spatial_shape)
    if known.ndim != module.ndim:
        raise CaptureError(
            f"{layer} shares indice_key {key!r} with a layer of {known.ndim} dimension(s), but has "
            f"{module.ndim}. Layers that share a key must agree: give this layer another key."
        )
    for what in ("kernel_size", "dilation", "input_spatial_shape"):
        expected, came = (narrowed(getattr(g, what), module.ndim) for g in (known.geometry, wanted))
        if expected != came:
            raise CaptureError(
                f"{layer} shares indice_key {key!r} with a layer of {what} {expected}, but has "
                f"{came}. Layers that share a key must agree: give this layer another key."
            )
    if not same_tensor(known.indices, tensor.indices):
        raise CaptureError(
            f"{layer} shares indice_key {key!r} with a layer on other sites. "
            "Layers that share a key must have the same input sites: give this layer another key."
        )
    return known


def _inverse(tracing: Tracing, module: Any, tensor: Any, name: str) -> KernelMap:
    """The partner's map the other way round, back to the partner's input sites."""
    layer, key = f"Layer {tracing.describe(module)}", module.indice_key
    known: KernelMap | None = tensor.find_indice_pair(key)
    if known is None:
        raise CaptureError(
            f"{layer} inverts the convolution with indice_key {key!r}, but no layer before it has that key "
            "(layers with a kernel of one offset leave none). Give its partner the same key."
        )
    partner = known.geometry
    if partner.subm:
        raise CaptureError(
            f"{layer} inverts the convolution with indice_key {key!r}, which is submanifold and changes no "
            f"sites. Only a SparseConv{module.ndim}d or SparseConvTranspose{module.ndim}d can be inverted."
        )
    if known.ndim != module.ndim:
        raise CaptureError(
            f"{layer} inverts the convolution with indice_key {key!r}, which has {known.ndim} dimension(s), "
            f"but has {module.ndim}. Give its partner, and this layer, a key that no other layer has."
        )
    for what, expected, came in (
        ("kernel_size", narrowed(partner.kernel_size, module.ndim), list(module.kernel_size)),
        ("input grid", narrowed(partner.output_spatial_shape, module.ndim), list(tensor.spatial_shape)),
    ):
        if expected != came:
            raise CaptureError(
                f"{layer} inverts the convolution with indice_key {key!r} and needs its {what} {expected}, "
                f"but has {came}."
            )
    if not same_tensor(known.out_indices, tensor.indices):
        raise CaptureError(
            f"{layer} inverts the convolution with indice_key {key!r}, but its input is on other sites than "
            "that convolution's output."
        )
    value = torch.ops.scn_fx.inverse_map.default(
        known.value, known.indices, name=name, output_bound=tracing.output_bound
    )
    return KernelMap(value, known.rulebook, partner.inverted(), known.out_indices, known.indices)
