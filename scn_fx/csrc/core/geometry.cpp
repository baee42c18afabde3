// SPDX-License-Identifier: Apache-2.0
#include "core/geometry.h"

#include <algorithm>

#include "core/sizes.h"

namespace scn {
namespace {

void check_entries(const Triple& values, int32_t least, const char* name, ErrorKind kind,
                   const std::string& layer) {
  for (const int32_t n : values) {
    if (n < least || n > kMostExtent) {
      fail(kind, layer, ": ", name, " is ", to_string(values), "; each of its entries (z, y, x) must be ",
           least, " to ", kMostExtent, ".");
    }
  }
}

}  // namespace

std::string to_string(const Triple& t) {
  return "[" + std::to_string(t[0]) + ", " + std::to_string(t[1]) + ", " + std::to_string(t[2]) + "]";
}

int64_t output_extent(const ConvGeometry& g, size_t axis, int32_t output_padding) {
  const int64_t n = g.input_shape[axis], k = g.kernel[axis], s = g.stride[axis], p = g.padding[axis],
                d = g.dilation[axis];
  if (g.transposed) return (n - 1) * s - 2 * p + d * (k - 1) + 1 + output_padding;
  const int64_t room = n + 2 * p - d * (k - 1) - 1;
  return room < 0 ? 0 : room / s + 1;
}

Triple subm_padding(const Triple& kernel, const Triple& dilation) {
  Triple padding;
  for (size_t i = 0; i < 3; ++i) {
    const int64_t half = int64_t(kernel[i] / 2) * dilation[i];
    padding[i] = int32_t(std::clamp<int64_t>(half, 0, kMostExtent + 1));
  }
  return padding;
}

void check_shape(const Triple& shape, const char* name, ErrorKind kind, const std::string& layer) {
  check_entries(shape, 1, name, kind, layer);
}

void check_geometry(const ConvGeometry& g, ErrorKind kind, const std::string& layer) {
  check_entries(g.kernel, 1, "kernel_size", kind, layer);
  check_entries(g.stride, 1, "stride", kind, layer);
  check_entries(g.padding, 0, "padding", kind, layer);
  check_entries(g.dilation, 1, "dilation", kind, layer);
  check_entries(g.input_shape, 1, "input_spatial_shape", kind, layer);
  check_entries(g.output_shape, 1, "output_spatial_shape", kind, layer);
  if (Size::of(g.kernel) > kMostOffsets) {
    fail(kind, layer, ": kernel_size ", to_string(g.kernel), " has ", Size::of(g.kernel).text(),
         " offsets; this engine takes ", kMostOffsets, " at most.");
  }
  for (size_t axis = 0; axis < 3; ++axis) {
    // The side whose coordinates are multiplied by the stride: the input of a transposed convolution, or of
    // an inverse one.
    const int64_t coarse = g.transposed != g.inverse ? g.input_shape[axis] : g.output_shape[axis];
    const int64_t fine = g.transposed != g.inverse ? g.output_shape[axis] : g.input_shape[axis];
    const Size reach = Size(g.dilation[axis]) * g.kernel[axis] + Size(2) * g.padding[axis];
    if (Size(coarse) * g.stride[axis] + reach > kMostExtent || Size(fine) + reach > kMostExtent) {
      fail(kind, layer, ": kernel_size ", to_string(g.kernel), ", stride ", to_string(g.stride), ", padding ",
           to_string(g.padding), " and dilation ", to_string(g.dilation), " reach further from a grid of ",
           to_string(g.input_shape), " than this engine can number (", kMostExtent, " cells along an axis).");
    }
  }
}

}  // namespace scn
