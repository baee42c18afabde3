# SPDX-License-Identifier: Apache-2.0
"""The operators' kernels on CUDA, on the current stream of the tensors' device. See `devices.Kernels`.

All memory is torch's, scratch memory too: its allocator knows the order of the stream. What only values tell
(sites out of range, duplicates, entries of foreign maps, overflow) is an error as on the CPU, for which the
host waits; float32 convolutions over maps that the operators made wait for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from scn_fx.compiled import core
from scn_fx.errors import OverflowedError, SiteError
from scn_fx.geometry import ConvGeometry
from scn_fx.operators.activations import ACTIVATIONS
from scn_fx.ops.known_maps import is_known, remember
from scn_fx.ops.map_call import MapCall
from scn_fx.ops.straight_through import on_device

__all__ = [
    "add",
    "conv_map",
    "convolution",
    "inverse_map",
    "scatter_dense",
    "subm_map",
    "weight_gradient",
]

_GATHERED = 2**26
"""Values of a gathered matrix at a time: 256 MiB."""
_ORDERED_CHANNELS = 8
"""Up to so many input channels the order of float32 sums is part of their definition."""
_HALF_LIMIT = 65520.0
"""Magnitudes from here on round to infinity in float16."""


def _place(tensor: torch.Tensor) -> tuple[int, int]:
    """Device number and stream, which every compiled function takes first."""
    return tensor.device.index, torch.cuda.current_stream(tensor.device).cuda_stream


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in C order, at an address that kernels can read 16 bytes from."""
    tensor = tensor.detach().resolve_neg().contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _label(name: str, kind: str) -> str:
    """What messages call an operator."""
    return name or f"This {kind}"


def _map(indices: torch.Tensor, call: MapCall, output_bound: int) -> Any:
    """The call of a map, and the memory it uses."""
    g = call.geometry
    made = core().CudaMap(
        *_place(indices), _label(call.name, "kernel map"), indices.data_ptr(), indices.shape[0],
        call.batch_size, list(g.input_spatial_shape), list(g.output_spatial_shape), list(g.kernel_size),
        list(g.stride), list(g.padding), list(g.dilation), subm=g.subm, transposed=g.transposed,
        output_bound=output_bound,
    )  # fmt: skip
    scratch = indices.new_empty(made.scratch_bytes, dtype=torch.uint8)
    made.set_scratch(scratch.data_ptr())
    return made, scratch


def subm_map(indices: torch.Tensor, call: MapCall) -> torch.Tensor:
    indices = _dense(indices)
    run, _scratch = _map(indices, call, 0)
    made = indices.new_empty((indices.shape[0], call.geometry.volume))
    if len(made):
        run.subm_map(made.data_ptr())
    return remember(made, len(made))


def conv_map(indices: torch.Tensor, call: MapCall) -> tuple[torch.Tensor, torch.Tensor]:
    indices = _dense(indices)
    run, _scratch = _map(indices, call, call.output_bound)
    count = run.output_sites() if len(indices) else 0
    sites = indices.new_empty((count, 4))
    made = indices.new_empty((count, call.geometry.volume))
    if count:
        run.conv_map(count, sites.data_ptr(), made.data_ptr())
    return sites, remember(made, len(indices))


def inverse_map(kernel_map: torch.Tensor, rows: int, name: str) -> torch.Tensor:
    known = is_known(kernel_map, rows)
    dense = _dense(kernel_map)
    checks = None if known else dense.new_empty(4)
    inverse = dense.new_empty((rows, dense.shape[1]))
    core().cuda_inverse_map(
        *_place(dense), _label(name, "inverse map"), dense.data_ptr(), *dense.shape, rows, _address(checks),
        inverse.data_ptr(),
    )  # fmt: skip
    return remember(inverse, len(dense))


def _checked(kernel_map: torch.Tensor, rows: int, name: str) -> torch.Tensor:
    """The map, whose entries are -1 or below `rows`."""
    if kernel_map.numel() and not is_known(kernel_map, rows):
        low, high = torch.stack(kernel_map.aminmax()).tolist()
        if low < -1 or high >= rows:
            raise SiteError(
                f"{_label(name, 'convolution')}: the kernel map reads input row {low if low < -1 else high}, "
                f"but there are {rows} input rows. Build the map from the same sites as the features."
            )
    return _dense(kernel_map)


def _gathered(x: torch.Tensor, kernel_map: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Float32 rows that each output row reads, [m, K · channels], for some output rows at a time."""
    rows, offsets = kernel_map.shape
    width = offsets * x.shape[1]
    step = max(1, _GATHERED // width)
    for start in range(0, rows, step):
        part = kernel_map[start : start + step]
        out = x.new_empty((len(part), width))
        core().cuda_gather(
            *_place(x), x.data_ptr(), x.shape[0], x.shape[1], part.data_ptr(), len(part), offsets,
            out.data_ptr(),
        )  # fmt: skip
        yield slice(start, start + len(part)), out


def convolution(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_map: torch.Tensor,
    name: str,
    activation: tuple[str, float],
    precision: str,
    output_precision: str,
    input_amax: float,
    weight_amax: Sequence[float] | None,
) -> torch.Tensor:
    """By the engine's kernels, but for float32 with more channels than those whose sums have an order.

    Those are matrix products of gathered rows: several times faster than sums in order.
    """
    kernel_map = _checked(kernel_map, features.shape[0], name)
    if precision == "fp32" and features.shape[1] > _ORDERED_CHANNELS:
        y = _product(features, weight, kernel_map)
        if bias is not None:
            y += bias.detach().float()
        y = ACTIVATIONS[activation[0]].compute(y, activation[1])
        return _rounded(y, name) if output_precision == "fp16" else y
    half = precision == "fp16"
    x = _dense(features if half and features.dtype == torch.float16 else features.float())
    w = _dense(weight.float())
    b = None if bias is None else _dense(bias.float())
    ranges = None if weight_amax is None else on_device(weight_amax, x.device)
    rounds = output_precision == "fp16"
    call = core().CudaConvolution(
        *_place(x), _label(name, "convolution"), x.data_ptr(), x.dtype == torch.float16, *x.shape,
        w.data_ptr(), w.shape[0], kernel_map.shape[1], _address(b), _address(ranges), input_amax,
        kernel_map.data_ptr(), len(kernel_map), precision, rounds, activation,
    )  # fmt: skip
    dtype = torch.float16 if rounds else torch.float32
    result = x.new_empty((len(kernel_map), call.columns), dtype=dtype)
    scratch = x.new_empty(call.scratch_bytes, dtype=torch.uint8)
    call.run(scratch.data_ptr(), result.data_ptr())
    return result[:, : w.shape[0]].contiguous()


def _product(features: torch.Tensor, weight: torch.Tensor, kernel_map: torch.Tensor) -> torch.Tensor:
    x = _dense(features.float())
    columns = weight.detach().float().reshape(weight.shape[0], -1).t()
    y = x.new_empty((len(kernel_map), weight.shape[0]))
    for rows, gathered in _gathered(x, kernel_map):
        torch.mm(gathered, columns, out=y[rows])  # autocast leaves calls with `out` alone
    return y


def _rounded(y: torch.Tensor, name: str) -> torch.Tensor:
    lost = int((~(y.abs() < _HALF_LIMIT)).sum())
    if lost:
        raise OverflowedError(
            f"{_label(name, 'convolution')}: {lost} values are NaN or do not fit in float16 (65504 at most). "
            "Rescale the layer, give its consumers int8 precision, or run the network in fp32."
        )
    return y.half()


def weight_gradient(
    grad: torch.Tensor, features: torch.Tensor, kernel_map: torch.Tensor, name: str
) -> torch.Tensor:
    kernel_map = _checked(kernel_map, features.shape[0], name)
    x = _dense(features)
    result = grad.new_empty((grad.shape[1], kernel_map.shape[1] * features.shape[1]))
    if not len(kernel_map):
        result.zero_()
    for rows, gathered in _gathered(x, kernel_map):  # autocast leaves calls in place or with `out` alone
        if rows.start:
            result.addmm_(grad[rows].t(), gathered)
        else:
            torch.mm(grad[rows].t(), gathered, out=result)
    return result.reshape(grad.shape[1], kernel_map.shape[1], features.shape[1])


def add(
    a: torch.Tensor,
    b: torch.Tensor,
    name: str,
    activation: tuple[str, float],
    precision: str,
    output_precision: str,
    amax0: float,
    amax1: float,
) -> torch.Tensor:
    left, right = _dense(a.float()), _dense(b.float())
    rounds = output_precision == "fp16"
    result = torch.empty_like(left, dtype=torch.float16 if rounds else torch.float32)
    counts = left.new_empty(4, dtype=torch.int32)
    core().cuda_add(
        *_place(left), _label(name, "addition"), left.data_ptr(), right.data_ptr(), left.numel(), precision,
        rounds, activation, amax0, amax1, counts.data_ptr(), result.data_ptr(),
    )  # fmt: skip
    return result


def scatter_dense(
    features: torch.Tensor,
    indices: torch.Tensor,
    name: str,
    batch_size: int,
    spatial_shape: Sequence[int],
) -> torch.Tensor:
    geometry = ConvGeometry.submanifold(spatial_shape, [1] * 3, [1] * 3)
    subm_map(indices, MapCall(name, batch_size, geometry))  # which checks the sites
    dense = features.new_zeros((batch_size, features.shape[1], *spatial_shape))
    batch, z, y, x = indices.long().unbind(1)
    dense[batch, :, z, y, x] = features.detach()
    return dense
