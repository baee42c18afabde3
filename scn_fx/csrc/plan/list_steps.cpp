// SPDX-License-Identifier: Apache-2.0
#include "core/activation_info.h"
#include "plan/passes.h"

namespace scn {
namespace {

/// f after g as one activation; false if it is none.
bool composes(const Activation& f, const Activation& g, Activation* both) {
  *both = is_some(f) ? f : g;
  return !is_some(f) || !is_some(g) || (f == g && info_of(f.kind).idempotent);
}

/// What lies behind a value after what lies before it, as one; false if that takes a step of its own.
bool joined(const Root& outer, const Root& inner, Root* both) {
  *both = inner;
  if (outer.affine >= 0 || is_some(outer.activation)) both->half = outer.half;
  if (outer.affine >= 0) {
    both->affine = outer.affine;
    both->column = outer.column;
    both->activation = outer.activation;
    return inner.affine < 0 && !is_some(inner.activation);
  }
  // What an affine map makes is rounded before a node behind it sees it.
  const bool rounded = inner.affine >= 0 && inner.half;
  if (rounded && !info_of(outer.activation.kind).commutes) return false;
  return composes(outer.activation, inner.activation, &both->activation);
}

Root root_of(const Network& net, const Values& values, int id) {
  const Root own{id, net.values[size_t(id)].half};
  const int producer = net.values[size_t(id)].producer;
  if (producer < 0) return own;
  const NodeSpec& node = net.nodes[size_t(producer)];
  if (node.kind != NodeKind::kActivation && node.kind != NodeKind::kAffine) return own;
  const Root outer{id, own.half, node.kind == NodeKind::kAffine ? producer : -1, 0, node.activation};
  // the input of a node is numbered before its output
  Root both{};
  if (!joined(outer, values.roots[size_t(node.inputs[0])], &both)) return own;
  std::vector<Part> parts;
  return is_concat(net, both.value) && !list_parts(net, values, both, parts) ? own : both;
}

int add_dense(Plan& plan, Values& values, int id) {
  DenseMap map;
  map.value = id;
  map.type = plan.network.values[size_t(id)].half ? ElementType::kFloat16 : ElementType::kFloat32;
  plan.dense.push_back(map);
  return values.dense_of[size_t(id)] = int(plan.dense.size()) - 1;
}

}  // namespace

bool list_parts(const Network& net, const Values& values, const Root& outer, std::vector<Part>& parts) {
  const int32_t start = parts.empty() ? 0 : parts.back().column + parts.back().channels;
  int32_t column = start;
  const NodeSpec& node = net.nodes[size_t(net.values[size_t(outer.value)].producer)];
  for (int input : node.inputs) {
    const int32_t channels = net.values[size_t(input)].channels;
    Root behind = outer, both{};
    behind.column += column - start;
    if (!joined(behind, values.roots[size_t(input)], &both)) return false;
    if (!is_concat(net, both.value)) {
      parts.push_back({both, column, channels});
    } else if (!list_parts(net, values, both, parts)) {
      return false;
    }
    column += channels;
  }
  return true;
}

Values list_steps(Plan& plan) {
  const Network& net = plan.network;
  Values values;
  values.step_of.assign(net.values.size(), -1);
  values.dense_of.assign(net.values.size(), -1);
  values.readers.assign(net.values.size(), 0);
  for (const NodeSpec& node : net.nodes) {
    for (int input : node.inputs) ++values.readers[size_t(input)];
  }
  for (int output : net.outputs) ++values.readers[size_t(output)];
  for (size_t id = 0; id < net.values.size(); ++id) values.roots.push_back(root_of(net, values, int(id)));

  Step load{};
  load.kind = Step::Kind::kLoad;
  load.result = net.features;
  plan.steps.push_back(load);
  values.step_of[size_t(net.features)] = 0;
  for (size_t i = 0; i < net.nodes.size(); ++i) {
    const NodeSpec& node = net.nodes[i];
    Step step{};
    step.node = int(i);
    step.result = node.output;
    switch (node.kind) {
      case NodeKind::kConvolution:
        step.kind = Step::Kind::kConvolution;
        step.epilogue.activation = node.activation;
        break;
      case NodeKind::kAdd:
      case NodeKind::kMultiply:
        step.kind = Step::Kind::kRows;
        break;
      case NodeKind::kActivation:
      case NodeKind::kAffine:
        if (!values.is_root(node.output)) continue;  // a stored form of its root
        step.kind = Step::Kind::kRows;
        step.epilogue.activation = node.activation;
        if (node.kind == NodeKind::kAffine) step.epilogue.affine = int(i);
        break;
      case NodeKind::kConcat:
        step.kind = Step::Kind::kConcat;
        break;
      case NodeKind::kGroupNorm:
        step.kind = Step::Kind::kGroupNorm;
        break;
      case NodeKind::kPool:
        step.kind = Step::Kind::kPool;
        break;
      case NodeKind::kUnion:
        step.kind = Step::Kind::kUnion;
        break;
      case NodeKind::kGlobalPool:
        step.kind = Step::Kind::kGlobalPool;
        step.dense_out = add_dense(plan, values, node.output);
        break;
      case NodeKind::kScatterDense:
        step.kind = Step::Kind::kScatterDense;
        step.dense_out = add_dense(plan, values, node.output);
        plan.dense[size_t(step.dense_out)].scattered = true;
        break;
      case NodeKind::kReshape:
        values.dense_of[size_t(node.output)] = values.dense_of[size_t(node.inputs[0])];
        continue;
      case NodeKind::kTranspose:
        step.kind = Step::Kind::kTranspose;
        step.dense_in = values.dense_of[size_t(node.inputs[0])];
        step.dense_out = add_dense(plan, values, node.output);
        break;
    }
    values.step_of[size_t(node.output)] = int(plan.steps.size());
    plan.steps.push_back(step);
  }
  return values;
}

}  // namespace scn
