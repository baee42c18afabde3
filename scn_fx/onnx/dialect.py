# SPDX-License-Identifier: Apache-2.0
"""The ONNX dialect of libspconv: node types and attributes, the same for both exporters.

An attribute's ONNX type follows from its Python type: int (i), float (f), str (s), list of int (ints) and
list of float (floats). libspconv reads the types literally, so a flag is an int here and never a bool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scn_fx.errors import ExportError

__all__ = [
    "DOMAIN",
    "DOMAIN_VERSION",
    "OPSET",
    "Attribute",
    "Attributes",
    "Convolution",
    "add_attributes",
    "check_split",
    "dims_attributes",
    "scatter_attributes",
]

DOMAIN = "scn_fx"
DOMAIN_VERSION = 1

OPSET = 18
"""Opset of the default domain in the files. No node uses it, but torch's version converter runs below 18."""

Attribute = int | float | str | list[int] | list[float]
Attributes = dict[str, Attribute]


def _precisions(precision: str, output_precision: str) -> Attributes:
    """Precision attributes; a float32 node leaves them out, so that the engine chooses."""
    if precision == "fp32":
        return {}
    return {"precision": precision, "output_precision": output_precision}


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """The keyword arguments of ``scn_fx::convolution``, as the dialect needs them."""

    name: str
    rulebook: str
    activation: str
    kernel_size: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    output_padding: Sequence[int]
    input_spatial_shape: Sequence[int]
    output_spatial_shape: Sequence[int]
    subm: bool
    inverse: bool
    transposed: bool
    output_bound: int
    precision: str = "fp32"
    output_precision: str = "fp32"
    input_dynamic_range: float | None = None
    weight_dynamic_ranges: Sequence[float] | None = None

    def attributes(self, in_channels: int, out_channels: int) -> Attributes:
        """Attributes of the SparseConvolution node, in the order in which they are written."""
        found: Attributes = {
            "ndim": 3,
            "input_spatial_shape": list(self.input_spatial_shape),
            "output_spatial_shape": list(self.output_spatial_shape),
            "in_channels": in_channels,
            "out_channels": out_channels,
            "kernel_size": list(self.kernel_size),
            "output_bound": int(self.output_bound),
            "stride": list(self.stride),
            "dilation": list(self.dilation),
            "padding": list(self.padding),
            "transposed": int(self.transposed),
            "inverse": int(self.inverse),
            "output_padding": list(self.output_padding),
            "groups": 1,
            "subm": int(self.subm),
            "rulebook": self.rulebook,
            "activation": self.activation,
            # The number of sites is not known before a frame arrives.
            "input_shape": [-1, in_channels],
            "output_shape": [-1, out_channels],
            **_precisions(self.precision, self.output_precision),
        }
        if self.precision != "fp32":
            if self.input_dynamic_range is not None:
                found["input_dynamic_range"] = float(self.input_dynamic_range)
            if self.weight_dynamic_ranges is not None:
                found["weight_dynamic_ranges"] = [float(amax) for amax in self.weight_dynamic_ranges]
        return found


def add_attributes(
    precision: str,
    output_precision: str,
    input0_dynamic_range: float | None,
    input1_dynamic_range: float | None,
) -> Attributes:
    """Attributes of an Add node."""
    found = _precisions(precision, output_precision)
    if precision != "fp32":
        if input0_dynamic_range is not None:
            found["input0_dynamic_range"] = float(input0_dynamic_range)
        if input1_dynamic_range is not None:
            found["input1_dynamic_range"] = float(input1_dynamic_range)
    return found


def check_split(name: str, activation: str) -> None:
    """An Add of the dialect has no activation: the view makes it an Add and a Relu."""
    if activation != "None":
        raise ExportError(
            f"Layer {name!r}: expected an Add without activation, got {activation!r}. Export "
            "onnx_view(graph) instead of the graph itself."
        )


def scatter_attributes(
    format: str, batch_size: int, channels: int, spatial_shape: Sequence[int]
) -> Attributes:
    """Attributes of a ScatterDense node."""
    grid = [int(size) for size in spatial_shape]
    return {"format": format, "input_spatial_shape": grid, "output_shape": [int(batch_size), channels, *grid]}


def dims_attributes(name: str, dims: Sequence[int]) -> Attributes:
    """Attributes of a Reshape or Transpose node."""
    found = [int(d) for d in dims]
    if not found:
        raise ExportError(f"Layer {name!r}: expected at least one dimension in dims, got none.")
    return {"dims": found}
