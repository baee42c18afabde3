// SPDX-License-Identifier: Apache-2.0
// The passes that make a plan, in their order. Each changes the plan that it is given.
#pragma once

#include <vector>

#include "plan/plan.h"

namespace scn {

/// Which step makes a value, and which activation lies between what that step computes and the value: most
/// activations are a stored form, not a step.
struct Root {
  int value;
  Activation activation;
};

/// What the passes know of a network's values.
struct Values {
  std::vector<Root> roots;    // by value
  std::vector<int> step_of;   // by value: the step that makes its root; the load step for the features
  std::vector<int> dense_of;  // by value: its dense map, or -1
  std::vector<int> readers;   // by value: nodes and outputs that read it
  bool is_root(int value) const { return roots[size_t(value)].value == value; }
};

/// A step for each node that needs one; dense maps.
Values list_steps(Plan& plan);
/// Moves Adds into the epilogues of convolutions.
void fuse_adds(Plan& plan, Values& values);
/// The stored forms of values: what steps read and store, and what the outputs are.
void choose_forms(Plan& plan, const Values& values);
/// Lets convolutions write dense maps, where the backend can.
void fuse_scatters(Plan& plan);
/// Lifetimes, and slots for storages that do not live at the same time.
void place_memory(Plan& plan);
/// Refuses what the backend cannot run.
void check_capabilities(const Plan& plan);

}  // namespace scn
