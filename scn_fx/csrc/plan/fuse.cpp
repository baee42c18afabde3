// SPDX-License-Identifier: Apache-2.0
// What moves into the epilogue of a convolution.
#include <algorithm>

#include "plan/passes.h"

namespace scn {
namespace {

/// The operand of an Add that a convolution makes for it alone, while the other one exists already; -1 if
/// there is none. Of two, the one that is made later.
int fusible_operand(const Plan& plan, const Values& values, const NodeSpec& add) {
  int chosen = -1, chosen_step = -1;
  for (int i = 0; i < 2; ++i) {
    const int self = add.inputs[size_t(i)], other = add.inputs[size_t(1 - i)];
    if (!values.is_root(self) || values.readers[size_t(self)] != 1) continue;
    const int step = values.step_of[size_t(self)];
    const Step& maker = plan.steps[size_t(step)];
    // One that has an Add already has no room for another.
    if (maker.kind != Step::Kind::kConvolution || maker.result != self || maker.epilogue.residual) continue;
    const int other_step = values.step_of[size_t(values.roots[size_t(other)].value)];
    if (step > chosen_step && other_step < step) {
      chosen = i;
      chosen_step = step;
    }
  }
  return chosen;
}

}  // namespace

void fuse_adds(Plan& plan, Values& values) {
  if (plan.trace) return;
  std::vector<char> gone(plan.steps.size(), 0);
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& add = plan.steps[i];
    if (add.kind != Step::Kind::kRows || plan.node_of(add).kind != NodeKind::kAdd) continue;
    const NodeSpec& node = plan.node_of(add);
    const int self = fusible_operand(plan, values, node);
    if (self < 0) continue;
    const int at = values.step_of[size_t(node.inputs[size_t(self)])];
    Step& convolution = plan.steps[size_t(at)];
    convolution.epilogue.rounds = plan.node_of(convolution).output_precision == ElementType::kFloat16;
    convolution.epilogue.residual.node = add.node;
    convolution.epilogue.residual.self_is_second = self == 1;
    convolution.result = add.result;
    values.step_of[size_t(add.result)] = at;
    gone[i] = 1;
  }
  std::vector<int> now(plan.steps.size());
  std::vector<Step> kept;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    now[i] = int(kept.size());
    if (!gone[i]) kept.push_back(std::move(plan.steps[i]));
  }
  plan.steps = std::move(kept);
  for (int& step : values.step_of) {
    if (step >= 0) step = now[size_t(step)];
  }
}

void fuse_scatters(Plan& plan) {
  if (plan.trace || !plan.traits.scatters) return;
  std::vector<int> readers(plan.storages.size(), 0), writer(plan.storages.size(), -1),
      writers(plan.storages.size(), 0);
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    for (const View& view : {step.input, step.epilogue.residual.other}) {
      if (view) ++readers[size_t(view.storage)];
    }
    for (const View& part : step.parts) ++readers[size_t(part.storage)];
    for (const Copy& copy : step.copies) {
      ++readers[size_t(copy.from.storage)];
      ++writers[size_t(copy.to.storage)];
    }
    for (const Emission& e : step.epilogue.emissions) {
      writer[size_t(e.rows.storage)] = int(i);
      ++writers[size_t(e.rows.storage)];
    }
  }
  for (const PlanOutput& output : plan.outputs) {
    if (output.rows) ++readers[size_t(output.rows.storage)];
  }
  const auto moves = [&](const Step& step) {
    return step.kind == Step::Kind::kScatterDense && readers[size_t(step.input.storage)] == 1 &&
           writers[size_t(step.input.storage)] == 1 &&
           plan.steps[size_t(writer[size_t(step.input.storage)])].kind == Step::Kind::kConvolution;
  };
  for (const Step& step : plan.steps) {
    if (!moves(step)) continue;
    for (Emission& e : plan.steps[size_t(writer[size_t(step.input.storage)])].epilogue.emissions) {
      if (e.rows.storage != step.input.storage) continue;
      e.rows.storage = -1;
      e.dense = step.dense_out;
    }
  }
  plan.steps.erase(std::remove_if(plan.steps.begin(), plan.steps.end(), moves), plan.steps.end());
}

}  // namespace scn
