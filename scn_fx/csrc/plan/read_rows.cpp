// SPDX-License-Identifier: Apache-2.0
// Operators that work row by row.
#include "core/error.h"
#include "plan/reader.h"

namespace scn {

void NetworkReader::read_add(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
  spec.inputs = {value_id(node, 0), value_id(node, 1)};
  const ValueSpec &x = sparse(spec.inputs[0]), &y = sparse(spec.inputs[1]);
  if (x.set != y.set || x.channels != y.channels) {
    fail(ErrorKind::kOnnx, label_, ": its inputs must lie on the same sites with the same channels; '",
         x.name, "' has ", x.channels, " channels on sites ", x.set, ", '", y.name, "' has ", y.channels,
         " on sites ", y.set, ".");
  }
  read_precisions(a, spec, out);
  spec.amax[0] = a.number("input0_dynamic_range", 0.0f);
  spec.amax[1] = a.number("input1_dynamic_range", 0.0f);
  if (spec.precision == ElementType::kInt8) {
    check_range(spec.amax[0], "input0_dynamic_range");
    check_range(spec.amax[1], "input1_dynamic_range");
  }
  out.channels = x.channels;
  out.set = x.set;
}

void NetworkReader::read_activation(const OnnxNode& node, const Attributes& a, NodeSpec& spec,
                                    ValueSpec& out) {
  spec.inputs = {value_id(node, 0)};
  const ValueSpec& x = sparse(spec.inputs[0]);
  for (const ActivationInfo& info : kActivations) {
    if (info.node && node.op_type == info.node) spec.activation = a.activation(info);
  }
  out.channels = x.channels;
  out.set = x.set;
  out.half = x.half;
}

}  // namespace scn
