// SPDX-License-Identifier: Apache-2.0
// Pooling over all sites of a batch entry.
#include <limits>

#include "core/error.h"
#include "plan/reader.h"

namespace scn {

void NetworkReader::read_global_pool(const OnnxNode& node, const Attributes& a, NodeSpec& spec,
                                     ValueSpec& out) {
  spec.inputs = {value_id(node, 0)};
  const ValueSpec& x = sparse(spec.inputs[0]);
  spec.pooling = read_kind(a);
  const std::vector<int64_t> dims = a.integers("output_shape");
  if (dims.size() != 2 || dims[0] < 1 || dims[0] > std::numeric_limits<int32_t>::max() ||
      dims[1] != x.channels) {
    fail(ErrorKind::kOnnx, label_, ": output_shape must be [batch, ", x.channels,
         "], a row per batch entry with the channels of '", x.name, "'; the file has ", dims_text(dims), ".");
  }
  read_batch(dims[0]);
  out.dense = true;
  out.channels = x.channels;
  out.half = x.half;
  out.dims = dims;
  out.batch_first = true;
}

}  // namespace scn
