// SPDX-License-Identifier: Apache-2.0
// Operators that work row by row.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/geometry.h"
#include "core/numerics.h"
#include "core/sizes.h"
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

void NetworkReader::read_multiply(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
  read_add(node, a, spec, out);
  if (spec.precision != ElementType::kInt8) return;
  const float scale = product_scale(spec.amax[0], spec.amax[1]);
  if (!usable_scale(scale)) {
    fail(ErrorKind::kOnnx, label_, ": input0_dynamic_range ", spec.amax[0], " and input1_dynamic_range ",
         spec.amax[1], " make a product of two int8 steps of ", scale,
         ", which float32 cannot compute with. Give this layer fp16 precision.");
  }
}

/// y = x * scale + shift, channel by channel; as x, a float16 number or not.
void NetworkReader::read_affine(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
  spec.inputs = {value_id(node, 0)};
  const ValueSpec& x = sparse(spec.inputs[0]);
  spec.scale = a.numbers("scale");
  spec.shift = a.numbers("shift");
  for (const auto& [values, what] : {std::pair(&spec.scale, "scale"), std::pair(&spec.shift, "shift")}) {
    if (values->size() != size_t(x.channels)) {
      fail(ErrorKind::kOnnx, label_, ": ", what, " needs one entry per channel (", x.channels,
           "), the file has ", values->size(), ".");
    }
    for (float v : *values) {
      if (!std::isfinite(v))
        fail(ErrorKind::kOnnx, label_, ": ", what, " must be finite, the file has ", v, ".");
    }
    budget_.take(Size(x.channels + kAffinePadding) * sizeof(float), label_, "its scale and shift");
    values->resize(size_t(x.channels) + kAffinePadding, 0.0f);
  }
  out.channels = x.channels;
  out.set = x.set;
  out.half = x.half;
}

/// Each row over groups of its channels, then as read_affine.
void NetworkReader::read_group_norm(const OnnxNode& node, const Attributes& a, NodeSpec& spec,
                                    ValueSpec& out) {
  read_affine(node, a, spec, out);
  const int64_t groups = a.integer("num_groups", 0);
  if (groups < 1 || groups > out.channels || out.channels % groups) {
    fail(ErrorKind::kOnnx, label_, ": num_groups must divide its ", out.channels, " channels, the file says ",
         groups, ".");
  }
  spec.groups = int32_t(groups);
  spec.epsilon = a.number("epsilon", -1.0f);
  if (!(spec.epsilon >= 0.0f) || !std::isfinite(spec.epsilon)) {
    fail(ErrorKind::kOnnx, label_, ": epsilon must be a finite number >= 0, the file says ", spec.epsilon,
         ".");
  }
}

void NetworkReader::read_concat(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
  if (a.integer("axis", 1) != 1)
    fail(ErrorKind::kOnnx, label_, ": axis must be 1 (channels), the file says ", a.integer("axis", 1), ".");
  int64_t channels = 0;
  for (size_t i = 0; i < std::max<size_t>(node.inputs.size(), 1); ++i) {
    spec.inputs.push_back(value_id(node, i));
    const ValueSpec& x = sparse(spec.inputs.back());
    const ValueSpec& first = net_.values[size_t(spec.inputs[0])];
    if (x.set != first.set) {
      fail(ErrorKind::kOnnx, label_, ": its inputs must lie on the same sites; '", first.name, "' has sites ",
           first.set, ", '", x.name, "' has sites ", x.set, ".");
    }
    channels += x.channels;
    out.half = (i == 0 || out.half) && x.half;
  }
  if (channels > kMostChannels) {
    fail(ErrorKind::kOnnx, label_, ": its result has ", channels, " channels; this engine numbers ",
         kMostChannels, " at most.");
  }
  out.channels = int32_t(channels);
  out.set = net_.values[size_t(spec.inputs[0])].set;
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
