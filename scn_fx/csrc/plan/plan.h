// SPDX-License-Identifier: Apache-2.0
// What a backend executes: steps over stored forms of values. A step is a convolution or an Add with
// everything that follows it row by row (activation, residual Add, rounding, requantisation) in its epilogue.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/network.h"
#include "types.h"

namespace scn {

/// One stored form of a sparse value: rows of int8 (quantised for consumers with one range) or of float.
struct Storage {
  int value = 0;  // the value before the optional relu
  int channels = 0, set = 0;
  Format format = Format::kInt8;
  float amax = 0.0f;         // kInt8
  bool relu = false;         // holds max(value, 0)
  bool half = false;         // the value is rounded to float16 first
  bool nonnegative = false;  // no entry is below zero
  int slot = -1;             // storages with disjoint lifetimes share a slot
  int first = 0, last = 0;   // steps
};

struct Step {
  enum class Kind { kLoad, kConvolution, kAdd, kScatterDense, kTranspose } kind;
  int node = -1;   // of the network; -1 for kLoad
  int input = -1;  // storage (kConvolution, kAdd: first input, kScatterDense)
  int other = -1;  // storage of an Add's other input
  int add = -1;    // kConvolution: node of the Add fused into its epilogue
  bool self_is_second = false;
  std::vector<int> stores;            // storages written
  int dense_in = -1, dense_out = -1;  // dense maps, numbered
  bool last_use = false;              // kTranspose: dense_in is not needed afterwards
};

/// A dense map. Reshapes alias it: only the dims of the value that leaves the network matter.
struct DenseMap {
  int value = 0;
  bool half = true;
};

struct PlanOutput {
  int value = 0;
  int storage = -1;  // sparse outputs
  int dense = -1;    // dense outputs
  bool last = true;  // no later output has the same dense map
};

struct Plan {
  Network network;
  std::vector<Storage> storages;
  std::vector<Step> steps;
  std::vector<DenseMap> dense;
  std::vector<PlanOutput> outputs;  // of the network; with trace, one per node instead
  int slots = 0;
  bool trace = false;
};

/// The numbers of an int8 Add, seen from the value at hand ("self"): 127 / amax and amax / 127 of self, amax
/// / 127 of the other operand. Every backend takes them from here: the last bit of each decides int8 results.
struct AddScales {
  float self_factor, self_scale, other_scale;
};
AddScales add_scales(const NodeSpec& add, bool self_is_second);

/// Decides steps, stored forms and slots. With `trace`, nothing is fused and every node's value is an output.
Plan build_plan(Network network, bool trace);

}  // namespace scn
