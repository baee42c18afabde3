// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "plan/passes.h"

namespace scn {
namespace {

template <typename Visit>
void each_view(Step& step, const Visit& visit) {
  visit(step.input);
  for (View& part : step.parts) visit(part);
  visit(step.epilogue.residual.other);
  for (Copy& copy : step.copies) {
    visit(copy.from);
    visit(copy.to);
  }
  for (View& blank : step.blanks) visit(blank);
  for (Emission& e : step.epilogue.emissions) visit(e.rows);
}

/// Storages that nobody needs rows of are taken out.
void drop_unused(Plan& plan) {
  std::vector<int> now(plan.storages.size(), -1);
  const auto mark = [&](const View& view) {
    if (view) now[size_t(view.storage)] = 0;
  };
  for (Step& step : plan.steps) each_view(step, mark);
  for (const PlanOutput& output : plan.outputs) mark(output.rows);
  std::vector<Storage> kept;
  for (size_t i = 0; i < now.size(); ++i) {
    if (now[i] < 0) continue;
    now[i] = int(kept.size());
    kept.push_back(plan.storages[i]);
  }
  plan.storages = std::move(kept);
  const auto renumber = [&](View& view) {
    if (view) view.storage = now[size_t(view.storage)];
  };
  for (Step& step : plan.steps) each_view(step, renumber);
  for (PlanOutput& output : plan.outputs) renumber(output.rows);
}

void find_lifetimes(Plan& plan) {
  const int steps = int(plan.steps.size());
  for (Storage& s : plan.storages) s.first = steps;
  for (int i = 0; i < steps; ++i) {
    each_view(plan.steps[size_t(i)], [&](const View& view) {
      if (!view) return;
      Storage& s = plan.storages[size_t(view.storage)];
      s.first = std::min(s.first, i);
      s.last = std::max(s.last, i);
    });
  }
  for (const PlanOutput& output : plan.outputs) {
    if (output.rows) plan.storages[size_t(output.rows.storage)].last = steps;
  }
}

/// Who reads a dense map last: an output, or a step that then may release it.
void find_last_uses(Plan& plan) {
  std::vector<char> read_later(plan.dense.size(), 0);
  for (size_t i = plan.outputs.size(); i-- > 0;) {
    PlanOutput& out = plan.outputs[i];
    if (out.dense < 0) continue;
    out.last = !read_later[size_t(out.dense)];
    read_later[size_t(out.dense)] = 1;
  }
  for (size_t i = plan.steps.size(); i-- > 0;) {
    Step& step = plan.steps[i];
    if (step.dense_in < 0) continue;
    step.last_use = !read_later[size_t(step.dense_in)];
    read_later[size_t(step.dense_in)] = 1;
  }
}

/// Greedy interval colouring in the order of steps: a slot is free once its last reader's step has passed.
void assign_slots(Plan& plan) {
  std::vector<int> busy_until, slot_set;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    std::vector<View> written;
    for (const Emission& e : plan.steps[i].epilogue.emissions) written.push_back(e.rows);
    for (const Copy& copy : plan.steps[i].copies) written.push_back(copy.to);
    for (const View& view : written) {
      if (!view || plan.storage_of(view).slot >= 0) continue;
      Storage& storage = plan.storages[size_t(view.storage)];
      int best = -1;
      for (size_t slot = 0; slot < busy_until.size(); ++slot) {
        if (busy_until[slot] < int(i) && (best < 0 || slot_set[slot] == storage.set)) best = int(slot);
      }
      if (best < 0) {
        best = int(busy_until.size());
        busy_until.push_back(0);
        slot_set.push_back(storage.set);
      }
      busy_until[size_t(best)] = storage.last;
      slot_set[size_t(best)] = storage.set;
      storage.slot = best;
    }
  }
  plan.slots = int(busy_until.size());
}

}  // namespace

void place_memory(Plan& plan) {
  drop_unused(plan);
  find_lifetimes(plan);
  find_last_uses(plan);
  assign_slots(plan);
}

}  // namespace scn
