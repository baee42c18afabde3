// SPDX-License-Identifier: Apache-2.0
#include "core/activation_info.h"
#include "plan/passes.h"

namespace scn {
namespace {

/// Finds the stored form that a reader wants, or adds it to what the value's step stores.
class Forms {
 public:
  Forms(Plan& plan, const Values& values) : plan_(plan), values_(values), stores_(values.roots.size()) {}

  /// What a node of `precision` reads of a value, in int8 with its range.
  View operand(int id, ElementType precision, float amax) {
    if (precision == ElementType::kInt8) return store(id, ElementType::kInt8, amax, false);
    const bool rounds = precision == ElementType::kFloat16 || rounded(id);
    const bool half = precision == ElementType::kFloat16 || (rounds && plan_.traits.widens);
    return store(id, half ? ElementType::kFloat16 : ElementType::kFloat32, 0.0f, rounds);
  }

  /// A value as it is.
  View plain(int id) {
    return store(id, rounded(id) ? ElementType::kFloat16 : ElementType::kFloat32, 0.0f, rounded(id));
  }

  /// Emissions, by the step that makes the value, in the order of values.
  void attach() {
    for (size_t id = 0; id < stores_.size(); ++id) {
      for (int s : stores_[id]) emit(int(id), s);
    }
  }

 private:
  bool rounded(int id) const { return plan_.network.values[size_t(values_.roots[size_t(id)].value)].half; }

  View store(int id, ElementType type, float amax, bool rounds) {
    const Root& root = values_.roots[size_t(id)];
    const ValueSpec& value = plan_.network.values[size_t(root.value)];
    if (type == ElementType::kFloat16 && value.channels < plan_.traits.fewest_half_channels)
      type = ElementType::kFloat32;
    rounds = rounds || value.half;
    for (int s : stores_[size_t(root.value)]) {
      const Storage& have = plan_.storages[size_t(s)];
      if (have.type == type && have.activation == root.activation && have.rounded == rounds &&
          have.amax == amax) {
        return {s, 0, value.channels};
      }
    }
    Storage storage;
    storage.channels = value.channels;
    storage.set = value.set;
    storage.type = type;
    storage.amax = amax;
    storage.activation = root.activation;
    storage.rounded = rounds;
    storage.nonnegative = info_of(root.activation.kind).nonnegative ||
                          (!is_some(root.activation) && is_nonnegative(root.value));
    storage.row_bytes = plan_.traits.row_bytes(value.channels, type);
    plan_.storages.push_back(storage);
    const int s = int(plan_.storages.size()) - 1;
    stores_[size_t(root.value)].push_back(s);
    return {s, 0, value.channels};
  }

  /// Of a value as its step computes it.
  bool is_nonnegative(int id) const {
    const Step& step = plan_.steps[size_t(values_.step_of[size_t(id)])];
    return !step.epilogue.residual && info_of(step.epilogue.activation.kind).nonnegative;
  }

  void emit(int id, int s) {
    const Storage& storage = plan_.storages[size_t(s)];
    Emission e;
    e.rows = {s, 0, storage.channels};
    e.type = storage.type;
    e.factor = storage.type == ElementType::kInt8 ? int8_factor(storage.amax) : 0.0f;
    e.activation = storage.activation;
    e.rounds_first = plan_.network.values[size_t(id)].half && !info_of(storage.activation.kind).commutes;
    e.rounds = storage.rounded;
    plan_.steps[size_t(values_.step_of[size_t(id)])].epilogue.emissions.push_back(e);
  }

  Plan& plan_;
  const Values& values_;
  std::vector<std::vector<int>> stores_;  // storages, by value
};

void read_operands(Plan& plan, Forms& forms, Step& step) {
  if (step.node < 0) return;
  const NodeSpec& node = plan.node_of(step);
  Residual& residual = step.epilogue.residual;
  switch (step.kind) {
    case Step::Kind::kConvolution:
      step.input = forms.operand(node.inputs[0], node.precision, node.amax[0]);
      break;
    case Step::Kind::kRows:
      if (node.kind == NodeKind::kAdd) {
        residual.node = step.node;
        step.input = forms.operand(node.inputs[0], node.precision, node.amax[0]);
      } else {
        step.input = forms.plain(node.inputs[0]);
      }
      break;
    case Step::Kind::kScatterDense:
      step.input = forms.plain(node.inputs[0]);
      break;
    default:
      break;
  }
  if (!residual) return;
  const NodeSpec& add = plan.network.nodes[size_t(residual.node)];
  const int self = residual.self_is_second, other = 1 - self;
  residual.other = forms.operand(add.inputs[size_t(other)], add.precision, add.amax[other]);
  residual.type = plan.storage_of(residual.other).type;
  residual.rounds = add.precision == ElementType::kFloat16;
  if (add.precision == ElementType::kInt8) residual.scales = add_scales(add.amax[self], add.amax[other]);
}

}  // namespace

void choose_forms(Plan& plan, const Values& values) {
  Forms forms(plan, values);
  for (Step& step : plan.steps) read_operands(plan, forms, step);
  std::vector<int> outputs = plan.network.outputs;
  if (plan.trace) {
    outputs.clear();
    for (const NodeSpec& node : plan.network.nodes) outputs.push_back(node.output);
  }
  for (int id : outputs) {
    PlanOutput output;
    output.value = id;
    if (plan.network.values[size_t(id)].dense) {
      output.dense = values.dense_of[size_t(id)];
    } else {
      output.rows = forms.plain(id);
    }
    plan.outputs.push_back(output);
  }
  forms.attach();
}

}  // namespace scn
