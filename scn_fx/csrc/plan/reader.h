// SPDX-License-Identifier: Apache-2.0
// Builds a Network node by node: the one place where a file is refused. Each operator has a function, in
// read_convolution.cpp, read_union.cpp, read_rows.cpp, read_global_pool.cpp and read_dense.cpp; the table of
// them is in read_network.cpp.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/memory_budget.h"
#include "plan/attributes.h"
#include "plan/network.h"

namespace scn {

class NetworkReader {
 public:
  NetworkReader(const OnnxModel& model, const NetworkOptions& options)
      : model_(model), options_(options), budget_(options.load_limit) {}

  Network read();

  // Operators. `spec` has kind and name; everything else, and what is known of the node's output, is filled
  // in.
  void read_convolution(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_add(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_multiply(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_affine(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_group_norm(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_concat(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_pool(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_union(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_global_pool(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_activation(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_scatter(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_reshape(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void read_transpose(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out);

 private:
  static constexpr size_t kMostAxes = 64;  // of a dense map, as numpy has them
  static std::string dims_text(const std::vector<int64_t>& dims);

  void read_dimensions();
  void check_dimensions();
  void read_grid();
  void read_node(const OnnxNode& node);
  int add_value(const std::string& name, ValueSpec value, int producer);
  int value_id(const OnnxNode& node, size_t input);
  const ValueSpec& sparse(int id);
  ValueSpec& any_sparse(int id);
  const ValueSpec& dense(int id);
  Pooling read_kind(const Attributes& a);
  void read_batch(int64_t batch);
  void read_bound(const Attributes& a, NodeSpec& spec);
  void read_precisions(const Attributes& a, NodeSpec& spec, ValueSpec& out);
  void check_range(float amax, const char* what);
  const OnnxTensor& initializer(const OnnxNode& node, size_t input, const char* what);
  int map_of(const Attributes& a, const NodeSpec& spec, const Triple& kernel, int set);
  int inverse_map(const NodeSpec& spec, ConvGeometry g, int set, const std::string& rulebook, int partner);
  /// `to`: the output sites; -1 for a set that the map makes.
  int add_map(const NodeSpec& spec, const ConvGeometry& g, int set, int to, int partner,
              const std::string& rulebook);
  std::vector<int> union_maps(const NodeSpec& spec, const Triple& grid, const std::string& rulebook);

  const OnnxModel& model_;
  const NetworkOptions& options_;
  MemoryBudget budget_;
  Network net_;
  std::string label_;  // of the node at hand, for messages
  std::map<std::string, int> by_name_;
  std::map<std::string, int> rulebooks_;            // of convolutions and pooling layers: their map
  std::map<std::string, std::vector<int>> unions_;  // by rulebook: the map of each input
};

}  // namespace scn
