// SPDX-License-Identifier: Apache-2.0
#include "cpu/maps/reach.h"

#include <algorithm>

namespace scn {

int32_t AxisReach::output_of(int32_t in, int32_t offset) const {
  int64_t out = -1;
  if (transposed) {
    out = int64_t(in) * stride - padding + int64_t(offset) * dilation;
  } else {
    const int64_t scaled = int64_t(in) + padding - int64_t(offset) * dilation;
    if (scaled >= 0 && scaled % stride == 0) out = scaled / stride;
  }
  return out >= 0 && out < outputs ? int32_t(out) : -1;
}

int32_t AxisReach::input_of(int32_t out, int32_t offset) const {
  int64_t in = -1;
  if (transposed) {
    const int64_t scaled = int64_t(out) + padding - int64_t(offset) * dilation;
    if (scaled >= 0 && scaled % stride == 0) in = scaled / stride;
  } else {
    in = int64_t(out) * stride - padding + int64_t(offset) * dilation;
  }
  return in >= 0 && in < inputs ? int32_t(in) : -1;
}

namespace {

// Of both tables of an axis together: four times those of the largest LiDAR grids.
constexpr int64_t kMostTableEntries = int64_t(1) << 18;

Size table_entries(const ConvGeometry& g, size_t axis) {
  return (Size(g.input_shape[axis]) + g.output_shape[axis]) * g.kernel[axis];
}

std::vector<AxisReach::Span> make_spans(const AxisReach& r) {
  std::vector<AxisReach::Span> spans;
  for (size_t in = 0; in < r.output.size(); in += size_t(r.kernel)) {
    const auto begin = r.output.begin() + int64_t(in), end = begin + r.kernel;
    AxisReach::Span span{0, 0};
    for (auto out = begin; out != end; ++out) {
      if (*out >= 0 && (!span.bits || *out < span.first)) span = {*out, 1};
    }
    for (auto out = begin; out != end; ++out) {
      if (*out < 0) continue;
      if (*out - span.first >= 32) return {};
      span.bits |= uint32_t(1) << (*out - span.first);
    }
    spans.push_back(span);
  }
  return spans;
}

}  // namespace

Size reach_bytes(const ConvGeometry& g) {
  Size bytes = 0;
  for (size_t axis = 0; axis < 3; ++axis) {
    if (table_entries(g, axis) > kMostTableEntries) continue;
    bytes += table_entries(g, axis) * sizeof(int32_t) + Size(g.input_shape[axis]) * sizeof(AxisReach::Span);
  }
  return bytes;
}

Reach make_reach(const ConvGeometry& g) {
  Reach reach;
  for (size_t axis = 0; axis < 3; ++axis) {
    AxisReach& r = reach[axis];
    r.kernel = g.kernel[axis];
    r.stride = g.stride[axis];
    r.padding = g.padding[axis];
    r.dilation = g.dilation[axis];
    r.inputs = g.input_shape[axis];
    r.outputs = g.output_shape[axis];
    r.transposed = g.transposed;
    if (table_entries(g, axis) > kMostTableEntries) continue;
    r.output.reserve((Size(r.inputs) * r.kernel).count());
    r.input.reserve((Size(r.outputs) * r.kernel).count());
    for (int32_t in = 0; in < r.inputs; ++in) {
      for (int32_t k = 0; k < r.kernel; ++k) r.output.push_back(r.output_of(in, k));
    }
    for (int32_t out = 0; out < r.outputs; ++out) {
      for (int32_t k = 0; k < r.kernel; ++k) r.input.push_back(r.input_of(out, k));
    }
    r.spans = make_spans(r);
  }
  return reach;
}

ReachRows::ReachRows(const Reach& reach) : reach_(reach) {
  for (size_t axis = 0; axis < 3; ++axis) {
    if (!reach[axis].has_tables()) computed_[axis].resize(size_t(reach[axis].kernel));
  }
}
}  // namespace scn
