// SPDX-License-Identifier: Apache-2.0
// Dense maps: from rows, and their rearrangement.
#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/sizes.h"
#include "plan/reader.h"

namespace scn {

void NetworkReader::read_scatter(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
  spec.inputs = {value_id(node, 0)};
  const ValueSpec& x = sparse(spec.inputs[0]);
  const Triple& grid = net_.sets[size_t(x.set)].shape;
  const Triple said = a.triple("input_spatial_shape", &grid, 1);
  const std::string format = a.text("format", "zyx");
  if (format != "zyx" && format != "xyz") {
    fail(ErrorKind::kOnnx, label_, ": format must be 'zyx' or 'xyz', the file says '", format, "'.");
  }
  if (net_.axes.empty()) net_.axes = format;
  for (size_t axis = 0; axis < 3; ++axis) {
    if (said[axis] < grid[axis]) {
      fail(ErrorKind::kOnnx, label_, ": input_spatial_shape is ", to_string(said),
           ", but its sites lie on a larger grid, ", to_string(grid), ". Export the model again.");
    }
  }
  std::vector<int64_t> dims = a.integers("output_shape");
  if (dims.size() != 5 || dims[0] < 1 || dims[0] > std::numeric_limits<int32_t>::max() ||
      dims[1] != x.channels || dims[2] != said[0] || dims[3] != said[1] || dims[4] != said[2]) {
    fail(ErrorKind::kOnnx, label_, ": output_shape must be [batch, ", x.channels, ", ", said[0], ", ",
         said[1], ", ", said[2], "], as input_spatial_shape says; the file has ", dims_text(dims), ".");
  }
  if (Size::of(dims).too_large()) {
    fail(ErrorKind::kOnnx, label_, ": a dense map of ", dims_text(dims),
         " has more values than this engine can number.");
  }
  read_batch(dims[0]);
  out.dense = true;
  out.channels = x.channels;
  out.half = x.half;
  out.dims = dims;
  out.batch_first = true;
}

/// The batch of a dense map, which all of a network share.
void NetworkReader::read_batch(int64_t batch) {
  if (net_.batch && net_.batch != batch) {
    fail(ErrorKind::kOnnx, label_, ": dense maps of one network need the same batch, found ", net_.batch,
         " and ", batch, ".");
  }
  net_.batch = narrow(batch, "The batch size of a dense map");
}

void NetworkReader::read_reshape(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
  spec.inputs = {value_id(node, 0)};
  const ValueSpec& x = dense(spec.inputs[0]);
  spec.dims = a.integers("dims");
  bool positive = !spec.dims.empty() && spec.dims.size() <= kMostAxes;
  for (int64_t d : spec.dims) positive = positive && d > 0;
  const Size before = Size::of(x.dims), after = positive ? Size::of(spec.dims) : Size(0);
  if (before != after || after.too_large()) {
    fail(ErrorKind::kOnnx, label_, ": cannot reshape ", dims_text(x.dims), " to dims ", dims_text(spec.dims),
         ".");
  }
  out.batch_first = x.batch_first && spec.dims[0] == x.dims[0];
  out.dense = true;
  out.channels = x.channels;
  out.half = x.half;
  out.dims = spec.dims;
}

void NetworkReader::read_transpose(const OnnxNode& node, const Attributes& a, NodeSpec& spec,
                                   ValueSpec& out) {
  spec.inputs = {value_id(node, 0)};
  const ValueSpec& x = dense(spec.inputs[0]);
  spec.dims = a.integers("dims");
  std::vector<int64_t> sorted = spec.dims;
  std::sort(sorted.begin(), sorted.end());
  bool permutation = sorted.size() == x.dims.size();
  for (size_t i = 0; permutation && i < sorted.size(); ++i) permutation = sorted[i] == int64_t(i);
  if (!permutation) {
    fail(ErrorKind::kOnnx, label_, ": dims ", dims_text(spec.dims), " is not a permutation of the axes of ",
         dims_text(x.dims), ".");
  }
  out.dense = true;
  out.channels = x.channels;
  out.half = x.half;
  for (int64_t axis : spec.dims) out.dims.push_back(x.dims[size_t(axis)]);
  out.batch_first = x.batch_first && spec.dims[0] == 0;
}

}  // namespace scn
