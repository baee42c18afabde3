// SPDX-License-Identifier: Apache-2.0
// What a backend executes: steps over stored forms of values. A step is a convolution, or work row by row,
// with everything that follows it row by row (activation, residual Add, rounding, requantisation) in its
// epilogue. Everything is decided when a file is loaded; executors find the addresses and launch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/activation.h"
#include "core/numerics.h"
#include "core/types.h"
#include "plan/network.h"
#include "plan/traits.h"

namespace scn {

/// Rows in memory that hold one stored form of a sparse value, or of several side by side.
struct Storage {
  int channels = 0, set = 0;
  ElementType type = ElementType::kInt8;
  float amax = 0.0f;         // int8: the range of whoever reads it
  bool nonnegative = false;  // no entry is below zero
  int32_t row_bytes = 0;
  int slot = -1;            // storages with disjoint lifetimes share a slot
  int first = 0, last = 0;  // steps
  // What the values are, for messages and descriptions.
  int affine = -1;            // node of the affine map that they went through,
  int32_t affine_column = 0;  // and its channel that is the first of them
  Activation activation;      // behind it
  bool rounded = false;       // each is a float16 number
};

/// Columns of a storage.
struct View {
  int storage = -1;  // -1: none
  int32_t column = 0, channels = 0;

  explicit operator bool() const { return storage >= 0; }
};

/// One stored form of a step's result.
struct Emission {
  View rows;            // where it is stored,
  int dense = -1;       // unless in the cells of a dense map
  int32_t columns = 0;  // of rows: those that are written, with zeros behind the last channel
  ElementType type = ElementType::kInt8;
  float factor = 0.0f;        // int8: 127 / amax
  bool rounds_first = false;  // to float16, before the affine map
  int affine = -1;            // node of an affine map; -1: none
  int32_t affine_column = 0;  // its channel that is the first of the rows
  Activation activation;
  bool rounds = false;  // to float16, behind the activation
};

/// The Add, or product, behind a result ("self").
struct Residual {
  int node = -1;         // -1: none
  bool product = false;  // of stored rows alone
  View other;
  ElementType type = ElementType::kInt8;  // of other
  bool rounds = false;                    // self is rounded to float16 first
  bool self_is_second = false;
  AddScales scales;    // int8
  float scale = 0.0f;  // int8 products

  explicit operator bool() const { return node >= 0; }
};

/// What follows a step's sums: scale and bias, activation, rounding, Add, emissions.
struct Epilogue {
  int affine = -1;  // node, of kRows: before everything else
  Activation activation;
  bool rounds = false;  // to float16, before the Add
  Residual residual;
  std::vector<Emission> emissions;
};

/// Columns to columns of the same type, both of all channels.
struct Copy {
  View from, to;
};

struct Step {
  /// kRows: the epilogue alone, of stored rows. kConcat: the parts of a concatenation that no step stores in
  /// place.
  enum class Kind {
    kLoad,
    kConvolution,
    kRows,
    kConcat,
    kPool,
    kUnion,
    kGroupNorm,
    kGlobalPool,
    kScatterDense,
    kTranspose
  } kind;
  int node = -1;    // of the network; -1 for kLoad
  int result = -1;  // value that the emissions store
  View input;       // all but kLoad, kConcat, kUnion and kTranspose
  Epilogue epilogue;
  std::vector<View> parts;   // kUnion: its inputs
  std::vector<Copy> copies;  // kConcat
  std::vector<View> blanks;  // kConcat: columns behind the last channel that nothing else sets to zero
  int dense_in = -1, dense_out = -1;  // dense maps, numbered
  bool last_use = false;              // kTranspose: dense_in is not needed afterwards
};
/// As in profiles: "convolution".
const char* step_kind(const Step& step);

/// A dense map. Reshapes alias it: only the dims of the value that leaves the network matter.
struct DenseMap {
  int value = 0;
  ElementType type = ElementType::kFloat16;
  bool scattered = false;  // sites are written to it: its other cells are zero
};

struct PlanOutput {
  int value = 0;
  View rows;         // sparse outputs
  int dense = -1;    // dense outputs
  bool last = true;  // no later output has the same dense map
};

struct Plan {
  Network network;
  BackendTraits traits{};
  std::vector<Storage> storages;
  std::vector<Step> steps;
  std::vector<DenseMap> dense;
  std::vector<PlanOutput> outputs;  // of the network; with trace, one per node instead
  int slots = 0;
  bool trace = false;

  const NodeSpec& node_of(const Step& step) const { return network.nodes[size_t(step.node)]; }
  /// The kernel maps that it reads.
  std::vector<int> maps_of(const Step& step) const;
  const Storage& storage_of(const View& view) const { return storages[size_t(view.storage)]; }
  /// What messages call the result of a step's sums, and what it stores behind an Add.
  const std::string& name_of(const Step& step) const;
  const std::string& result_name_of(const Step& step) const;
};

/// Decides steps, stored forms and slots, and refuses what the backend cannot run, with the node's name. With
/// `trace`, nothing is fused and every node's value is an output.
Plan build_plan(Network network, const BackendTraits& traits, bool trace);

}  // namespace scn
