// SPDX-License-Identifier: Apache-2.0
// Unions of sites.
#include <algorithm>

#include "core/error.h"
#include "core/pooling.h"
#include "plan/reader.h"

namespace scn {

/// The sum of values at the sites that any of them has.
void NetworkReader::read_union(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
  if (node.inputs.size() > size_t(kMostUnionParts)) {
    fail(ErrorKind::kOnnx, label_, ": it has ", node.inputs.size(), " inputs; this engine takes ",
         kMostUnionParts, " at most. Unite some of them first.");
  }
  for (size_t i = 0; i < std::max<size_t>(node.inputs.size(), 1); ++i) {
    spec.inputs.push_back(value_id(node, i));
    const ValueSpec &x = sparse(spec.inputs[i]), &first = net_.values[size_t(spec.inputs[0])];
    const Triple &grid = net_.sets[size_t(x.set)].shape, &expected = net_.sets[size_t(first.set)].shape;
    if (x.channels != first.channels || grid != expected) {
      fail(ErrorKind::kOnnx, label_, ": its inputs must have the same channels and lie on the same grid; '",
           first.name, "' has ", first.channels, " channels on ", to_string(expected), ", '", x.name,
           "' has ", x.channels, " channels on ", to_string(grid), ".");
    }
    out.half = (i == 0 || out.half) && x.half;
  }
  const ValueSpec& first = net_.values[size_t(spec.inputs[0])];
  const Triple grid = net_.sets[size_t(first.set)].shape, said = a.triple("spatial_shape", &grid, 1);
  if (said != grid) {
    fail(ErrorKind::kOnnx, label_, ": spatial_shape is ", to_string(said), ", but the grid of its inputs is ",
         to_string(grid), ".");
  }
  read_bound(a, spec);
  spec.maps = union_maps(spec, grid, a.text("rulebook", ""));
  out.channels = first.channels;
  out.set = net_.maps[size_t(spec.maps[0])].output_set;
}

/// The kernel map of each input: its own, or those of its rulebook.
std::vector<int> NetworkReader::union_maps(const NodeSpec& spec, const Triple& grid,
                                           const std::string& rulebook) {
  const auto set_of = [&](size_t input) { return net_.values[size_t(spec.inputs[input])].set; };
  const auto known = unions_.find(rulebook);
  const auto other = rulebooks_.find(rulebook);
  if (other != rulebooks_.end()) {
    fail(ErrorKind::kOnnx, label_, ": rulebook '", rulebook, "' was made by '",
         net_.maps[size_t(other->second)].layer,
         "', which is no union of sites. Give this union a rulebook of its own.");
  }
  if (known != unions_.end()) {
    bool same = known->second.size() == spec.inputs.size();
    for (size_t i = 0; same && i < spec.inputs.size(); ++i)
      same = net_.maps[size_t(known->second[i])].input_set == set_of(i);
    if (!same) {
      fail(ErrorKind::kOnnx, label_, ": rulebook '", rulebook, "' was made by '",
           net_.maps[size_t(known->second[0])].layer,
           "' of inputs on other sites. Unions that share a rulebook must agree in those, and in their "
           "order.");
    }
    return known->second;
  }
  ConvGeometry g;
  g.input_shape = g.output_shape = grid;
  std::vector<int> maps;
  for (size_t i = 0; i < spec.inputs.size(); ++i) {
    int map = -1;
    for (int earlier : maps) {
      if (net_.maps[size_t(earlier)].input_set == set_of(i)) map = earlier;
    }
    const int to = maps.empty() ? -1 : net_.maps[size_t(maps[0])].output_set;
    maps.push_back(map < 0 ? add_map(spec, g, set_of(i), to, -1, rulebook) : map);
  }
  if (!rulebook.empty()) unions_[rulebook] = maps;
  return maps;
}

}  // namespace scn
