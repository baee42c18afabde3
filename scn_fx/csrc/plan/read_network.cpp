// SPDX-License-Identifier: Apache-2.0
#include "core/error.h"
#include "core/geometry.h"
#include "core/numerics.h"
#include "plan/reader.h"

namespace scn {
namespace {

// Of a file; a thousand times those of large networks.
constexpr size_t kMostNodes = 1 << 14;

/// Who reads the nodes of an operator.
struct OperatorReader {
  const char* op_type;
  NodeKind kind;
  void (NetworkReader::*read)(const OnnxNode&, const Attributes&, NodeSpec&, ValueSpec&);
};

/// The operators of the dialect; each activation that has a node is one, besides.
const OperatorReader kOperators[] = {
    {"SparseConvolution", NodeKind::kConvolution, &NetworkReader::read_convolution},
    {"Add", NodeKind::kAdd, &NetworkReader::read_add},
    {"QuantAdd", NodeKind::kAdd, &NetworkReader::read_add},
    {"Mul", NodeKind::kMultiply, &NetworkReader::read_multiply},
    {"Affine", NodeKind::kAffine, &NetworkReader::read_affine},
    {"Concat", NodeKind::kConcat, &NetworkReader::read_concat},
    {"GroupNormalization", NodeKind::kGroupNorm, &NetworkReader::read_group_norm},
    {"SparsePool", NodeKind::kPool, &NetworkReader::read_pool},
    {"SparseUnion", NodeKind::kUnion, &NetworkReader::read_union},
    {"SparseGlobalPool", NodeKind::kGlobalPool, &NetworkReader::read_global_pool},
    {"ScatterDense", NodeKind::kScatterDense, &NetworkReader::read_scatter},
    {"Reshape", NodeKind::kReshape, &NetworkReader::read_reshape},
    {"Transpose", NodeKind::kTranspose, &NetworkReader::read_transpose},
};

OperatorReader reader_of(const OnnxNode& node, const std::string& label) {
  std::string known;
  for (const OperatorReader& candidate : kOperators) {
    if (node.op_type == candidate.op_type) return candidate;
    known += std::string(candidate.op_type) + ", ";
  }
  for (const ActivationInfo& info : kActivations) {
    if (!info.node) continue;
    if (node.op_type == info.node) return {info.node, NodeKind::kActivation, &NetworkReader::read_activation};
    known += std::string(info.node) + ", ";
  }
  known.resize(known.size() - 2);
  fail(ErrorKind::kOnnx, label, ": operator '", node.op_type,
       "' is not part of the dialect. This engine runs ", known, ".");
}

}  // namespace

std::string NetworkReader::dims_text(const std::vector<int64_t>& dims) {
  std::string out = "[";
  for (size_t i = 0; i < dims.size() && i < kMostAxes; ++i) out += (i ? ", " : "") + std::to_string(dims[i]);
  return out + (dims.size() > kMostAxes ? ", ...]" : "]");
}

Network NetworkReader::read() {
  if (model_.nodes.empty()) fail(ErrorKind::kOnnx, "The model has no nodes: nothing to run.");
  if (model_.inputs.size() != 1) {
    fail(ErrorKind::kOnnx, "The model has ", model_.inputs.size(),
         " inputs; the libspconv dialect has one, the features (indices are implicit). Export it through "
         "scn_fx.onnx_view.");
  }
  for (const auto& [count, what] :
       {std::pair(model_.nodes.size(), "nodes"), std::pair(model_.outputs.size(), "outputs")}) {
    if (count > kMostNodes)
      fail(ErrorKind::kOnnx, "The model has ", count, " ", what, "; this engine takes ", kMostNodes, ".");
  }
  if (options_.spatial_shape != Triple{0, 0, 0})
    check_shape(options_.spatial_shape, "spatial_shape", ErrorKind::kArgument, "The engine");
  read_dimensions();
  read_grid();
  net_.sets.push_back({options_.spatial_shape, -1});
  ValueSpec features;
  features.channels = -1;
  features.half = !options_.float32;  // rounded to float16 in any case, and kept as wide as all other values
  net_.features = add_value(model_.inputs[0], features, -1);
  for (const OnnxNode& node : model_.nodes) read_node(node);
  for (const std::string& name : model_.outputs) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end())
      fail(ErrorKind::kOnnx, "Output '", name, "' is produced by no node of the model.");
    net_.outputs.push_back(found->second);
  }
  if (net_.outputs.empty()) fail(ErrorKind::kOnnx, "The model has no outputs: nothing to run.");
  if (net_.values[size_t(net_.features)].channels < 0) {
    fail(ErrorKind::kOnnx, "No convolution reads the features '", model_.inputs[0], "'.");
  }
  check_dimensions();
  if (net_.axes.empty()) net_.axes = "zyx";  // as libspconv takes them
  return std::move(net_);
}

/// How many columns follow the batch in indices is said once, beside the nodes, which are all of 3D.
void NetworkReader::read_dimensions() {
  const auto found = model_.metadata.find("scn_fx.ndim");
  if (found == model_.metadata.end()) return;
  const std::string& said = found->second;
  if (said != "1" && said != "2" && said != "3") {
    fail(ErrorKind::kOnnx, "The model has damaged metadata: expected scn_fx.ndim to be 1, 2 or 3, got '",
         said.substr(0, 40), "'. Export it again.");
  }
  net_.ndim = said[0] - '0';
}

/// What only frames of points ask for. They check it: files with other metadata run on voxels all the same.
void NetworkReader::read_grid() {
  for (const auto& entry : model_.metadata) {
    if (entry.first == "scn_fx.axes") net_.axes = entry.second;
    if (entry.first.rfind(kGridPrefix, 0) == 0) net_.grid_entries.insert(entry);
  }
}

void NetworkReader::check_dimensions() {
  for (const SiteSetSpec& set : net_.sets) {
    for (int axis = 0; axis < 3 - net_.ndim; ++axis) {
      if (set.shape[size_t(axis)] <= 1) continue;
      const std::string of = set.map < 0 ? "its input" : "'" + net_.maps[size_t(set.map)].layer + "'";
      fail(ErrorKind::kOnnx, "The metadata of the model says that it has ", net_.ndim,
           " dimension(s) (scn_fx.ndim), but the sites of ", of, " lie on a grid of ", to_string(set.shape),
           ", whose leading axes must then have one cell. Export it again.");
    }
  }
}

void NetworkReader::read_node(const OnnxNode& node) {
  label_ = node.op_type + " '" +
           (node.name.empty() ? (node.outputs.empty() ? "?" : node.outputs[0]) : node.name) + "'";
  if (node.outputs.size() != 1) {
    fail(ErrorKind::kOnnx, label_, ": expected one output, the file has ", node.outputs.size(), ".");
  }
  const OperatorReader reader = reader_of(node, label_);
  NodeSpec spec;
  spec.kind = reader.kind;
  spec.op_type = reader.op_type;
  spec.name = node.name.empty() ? node.outputs[0] : node.name;
  ValueSpec out;
  (this->*reader.read)(node, Attributes(node, label_), spec, out);
  if (options_.float32) {
    spec.precision = spec.output_precision = ElementType::kFloat32;
    out.half = false;
  }
  spec.output = add_value(node.outputs[0], out, int(net_.nodes.size()));
  net_.nodes.push_back(std::move(spec));
}

int NetworkReader::add_value(const std::string& name, ValueSpec value, int producer) {
  if (name.empty()) fail(ErrorKind::kOnnx, label_, ": an output has no name.");
  if (by_name_.count(name)) fail(ErrorKind::kOnnx, label_, ": value '", name, "' is produced twice.");
  value.name = name;
  value.producer = producer;
  net_.values.push_back(std::move(value));
  return by_name_[name] = int(net_.values.size()) - 1;
}

int NetworkReader::value_id(const OnnxNode& node, size_t input) {
  if (input >= node.inputs.size()) {
    fail(ErrorKind::kOnnx, label_, ": expected at least ", input + 1, " inputs, the file has ",
         node.inputs.size(), ".");
  }
  const auto found = by_name_.find(node.inputs[input]);
  if (found == by_name_.end()) {
    fail(ErrorKind::kOnnx, label_, ": input '", node.inputs[input], "' is not produced before this node.");
  }
  return found->second;
}

/// A sparse input; only a convolution says how many channels the features have.
const ValueSpec& NetworkReader::sparse(int id) {
  const ValueSpec& v = any_sparse(id);
  if (v.channels < 0) {
    fail(ErrorKind::kOnnx, label_, ": it reads the features '", v.name,
         "' before any convolution; a network must start with one, which says how many channels they have.");
  }
  return v;
}

ValueSpec& NetworkReader::any_sparse(int id) {
  ValueSpec& v = net_.values[size_t(id)];
  if (v.dense)
    fail(ErrorKind::kOnnx, label_, ": '", v.name,
         "' is a dense map, but the operator needs sparse features.");
  return v;
}

const ValueSpec& NetworkReader::dense(int id) {
  const ValueSpec& v = net_.values[size_t(id)];
  if (!v.dense)
    fail(ErrorKind::kOnnx, label_, ": '", v.name, "' is sparse, but the operator needs a dense map.");
  return v;
}

void NetworkReader::read_precisions(const Attributes& a, NodeSpec& spec, ValueSpec& out) {
  spec.precision = a.precision("precision", ElementType::kFloat16);
  spec.output_precision = a.precision("output_precision", ElementType::kFloat16);
  out.half = spec.output_precision == ElementType::kFloat16;
}

void NetworkReader::check_range(float amax, const char* what) {
  if (!usable_range(amax)) {
    fail(ErrorKind::kOnnx, label_, ": in int8 its ", what, " must be ", kUsableRange, "; the file has ", amax,
         ". Calibrate the graph before exporting it.");
  }
}

Network read_network(const OnnxModel& model, const NetworkOptions& options) {
  return NetworkReader(model, options).read();
}

}  // namespace scn
