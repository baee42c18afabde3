// SPDX-License-Identifier: Apache-2.0
#include "core/activation_info.h"
#include "plan/passes.h"

namespace scn {
namespace {

/// f after g as one activation; false if it is none.
bool composes(const Activation& f, const Activation& g, Activation* both) {
  *both = f;
  return !is_some(g) || (f == g && info_of(f.kind).idempotent);
}

Root root_of(const Network& net, const Values& values, int id) {
  const int producer = net.values[size_t(id)].producer;
  if (producer < 0 || net.nodes[size_t(producer)].kind != NodeKind::kActivation) return {id, {}};
  const NodeSpec& node = net.nodes[size_t(producer)];
  // the input of a node is numbered before its output
  const Root& before = values.roots[size_t(node.inputs[0])];
  Activation both;
  return composes(node.activation, before.activation, &both) ? Root{before.value, both} : Root{id, {}};
}

int add_dense(Plan& plan, Values& values, int id) {
  DenseMap map;
  map.value = id;
  map.type = plan.network.values[size_t(id)].half ? ElementType::kFloat16 : ElementType::kFloat32;
  plan.dense.push_back(map);
  return values.dense_of[size_t(id)] = int(plan.dense.size()) - 1;
}

}  // namespace

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
        step.kind = Step::Kind::kRows;
        break;
      case NodeKind::kActivation:
        if (!values.is_root(node.output)) continue;  // a stored form of its root
        step.kind = Step::Kind::kRows;
        step.epilogue.activation = node.activation;
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
