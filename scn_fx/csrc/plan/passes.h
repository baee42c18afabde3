// SPDX-License-Identifier: Apache-2.0
// The passes that make a plan, in their order. Each changes the plan that it is given.
#pragma once

#include <vector>

#include "plan/plan.h"

namespace scn {

/// Which step makes a value, and what lies between what that step computes and the value: most affine maps
/// and activations are a stored form, not a step.
struct Root {
  int value;
  bool half = false;   // what lies behind all of them is a float16 number
  int affine = -1;     // node
  int32_t column = 0;  // its channel that is the first of the value
  Activation activation{};
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
/// Whether a value is a concatenation: nothing computes it, its parts are stored side by side.
inline bool is_concat(const Network& net, int value) {
  const int producer = net.values[size_t(value)].producer;
  return producer >= 0 && net.nodes[size_t(producer)].kind == NodeKind::kConcat;
}

/// A part of a concatenation: where it lies, and what it is stored as.
struct Part {
  Root root;
  int32_t column, channels;
};
/// The parts of a concatenation that are none themselves, where what lies behind it (`outer`) can be done
/// part by part; false if it cannot.
bool list_parts(const Network& net, const Values& values, const Root& outer, std::vector<Part>& parts);

/// Moves Adds into the epilogues of convolutions.
void fuse_adds(Plan& plan, Values& values);
/// The stored forms of values: what steps read and store, and what the outputs are; where concatenations have
/// to be copied together. Steps without any work go.
void choose_forms(Plan& plan, const Values& values);
/// Lets convolutions write dense maps, where the backend can.
void fuse_scatters(Plan& plan);
/// Lifetimes, and slots for storages that do not live at the same time.
void place_memory(Plan& plan);
/// Refuses what the backend cannot run.
void check_capabilities(const Plan& plan);

}  // namespace scn
