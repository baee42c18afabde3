// SPDX-License-Identifier: Apache-2.0
#include "plan/network.h"

#include <algorithm>
#include <limits>
#include <map>

#include "error.h"
#include "maps/geometry.h"
#include "memory_budget.h"
#include "plan/attributes.h"
#include "plan/initializers.h"
#include "ranges.h"
#include "sizes.h"

namespace scn {
namespace {

// libspconv's own default bound; its exporters write it into every convolution.
constexpr int64_t kDefaultBound = 200000;

// Of a file; a thousand times those of large networks.
constexpr size_t kMostNodes = 1 << 14;
constexpr size_t kMostAxes = 64;  // of a dense map, as numpy has them

std::string dims_text(const std::vector<int64_t>& dims) {
  std::string out = "[";
  for (size_t i = 0; i < dims.size() && i < kMostAxes; ++i) out += (i ? ", " : "") + std::to_string(dims[i]);
  return out + (dims.size() > kMostAxes ? ", ...]" : "]");
}

/// Builds a Network node by node.
class Reader {
 public:
  Reader(const OnnxModel& model, const NetworkOptions& options)
      : model_(model), options_(options), budget_(options.load_limit) {}

  Network read() {
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
    net_.sets.push_back({options_.spatial_shape, -1});
    ValueSpec features;
    features.channels = -1;
    features.half =
        !options_.float32;  // rounded to float16 in any case, and kept as wide as all other values
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
    return std::move(net_);
  }

 private:
  int add_value(const std::string& name, ValueSpec value, int producer) {
    if (name.empty()) fail(ErrorKind::kOnnx, label_, ": an output has no name.");
    if (by_name_.count(name)) fail(ErrorKind::kOnnx, label_, ": value '", name, "' is produced twice.");
    value.name = name;
    value.producer = producer;
    net_.values.push_back(std::move(value));
    return by_name_[name] = int(net_.values.size()) - 1;
  }

  int value_id(const OnnxNode& node, size_t input) {
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
  const ValueSpec& sparse(int id) {
    const ValueSpec& v = any_sparse(id);
    if (v.channels < 0) {
      fail(
          ErrorKind::kOnnx, label_, ": it reads the features '", v.name,
          "' before any convolution; a network must start with one, which says how many channels they have.");
    }
    return v;
  }

  ValueSpec& any_sparse(int id) {
    ValueSpec& v = net_.values[size_t(id)];
    if (v.dense)
      fail(ErrorKind::kOnnx, label_, ": '", v.name,
           "' is a dense map, but the operator needs sparse features.");
    return v;
  }

  const ValueSpec& dense(int id) {
    const ValueSpec& v = net_.values[size_t(id)];
    if (!v.dense)
      fail(ErrorKind::kOnnx, label_, ": '", v.name, "' is sparse, but the operator needs a dense map.");
    return v;
  }

  void read_node(const OnnxNode& node) {
    label_ = node.op_type + " '" +
             (node.name.empty() ? (node.outputs.empty() ? "?" : node.outputs[0]) : node.name) + "'";
    if (node.outputs.size() != 1) {
      fail(ErrorKind::kOnnx, label_, ": expected one output, the file has ", node.outputs.size(), ".");
    }
    NodeSpec spec;
    spec.name = node.name.empty() ? node.outputs[0] : node.name;
    ValueSpec out;
    const Attributes attributes(node, label_);
    const std::string& op = node.op_type;
    if (op == "SparseConvolution")
      read_convolution(node, attributes, spec, out);
    else if (op == "Add" || op == "QuantAdd")
      read_add(node, attributes, spec, out);
    else if (op == "Relu")
      read_relu(node, spec, out);
    else if (op == "ScatterDense")
      read_scatter(node, attributes, spec, out);
    else if (op == "Reshape")
      read_reshape(node, attributes, spec, out);
    else if (op == "Transpose")
      read_transpose(node, attributes, spec, out);
    else {
      fail(ErrorKind::kOnnx, label_, ": operator '", op,
           "' is not part of the libspconv dialect. This engine runs ",
           "SparseConvolution, Add, QuantAdd, Relu, ScatterDense, Reshape and Transpose.");
    }
    if (options_.float32) {
      spec.precision = spec.output_precision = Precision::kFloat32;
      out.half = false;
    }
    spec.output = add_value(node.outputs[0], out, int(net_.nodes.size()));
    net_.nodes.push_back(std::move(spec));
  }

  const OnnxTensor& initializer(const OnnxNode& node, size_t input, const char* what) {
    if (input >= node.inputs.size())
      fail(ErrorKind::kOnnx, label_, ": its ", what, " (input ", input, ") is missing.");
    const auto found = model_.initializers.find(node.inputs[input]);
    if (found == model_.initializers.end()) {
      fail(ErrorKind::kOnnx, label_, ": its ", what, " '", node.inputs[input],
           "' is not an initializer of the file.");
    }
    return found->second;
  }

  void read_convolution(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
    spec.kind = NodeSpec::Kind::kConvolution;
    const int input = value_id(node, 0);
    ValueSpec& x = any_sparse(input);
    spec.inputs = {input};
    const OnnxTensor& weight = initializer(node, 1, "weight");
    const OnnxTensor& bias = initializer(node, 2, "bias");
    const Triple kernel = a.triple("kernel_size", nullptr, 1);
    const auto& d = weight.dims;
    if (d.size() != 5 || d[1] != kernel[0] || d[2] != kernel[1] || d[3] != kernel[2]) {
      fail(ErrorKind::kOnnx, label_, ": its weight must be [out, kz, ky, kx, in] with kernel_size ",
           to_string(kernel), ", the file has ", dims_text(d), ".");
    }
    for (int64_t n : d) {
      if (n < 1 || n > kMostChannels)
        fail(ErrorKind::kOnnx, label_, ": its weight has impossible dimensions ", dims_text(d), ".");
    }
    if (Size::of(kernel) * d[4] > kMostDepth) {
      fail(ErrorKind::kOnnx, label_, ": its weight ", dims_text(d), " has more than ", kMostDepth,
           " offsets x input channels.");
    }
    spec.out_channels = int32_t(d[0]);
    spec.in_channels = int32_t(d[4]);
    if (a.integer("groups", 1) != 1)
      fail(ErrorKind::kOnnx, label_, ": grouped convolutions are not supported (groups must be 1).");
    if (a.integer("ndim", 3) != 3)
      fail(ErrorKind::kOnnx, label_, ": only 3D convolutions are supported (ndim must be 3).");
    if (x.channels < 0) x.channels = spec.in_channels;
    if (x.channels != spec.in_channels) {
      fail(ErrorKind::kOnnx, label_, ": its weight expects ", spec.in_channels, " input channels, '", x.name,
           "' has ", x.channels, ".");
    }
    // Nodes can share an initializer, but each has values of its own.
    budget_.take(Size::of(d) * sizeof(float), label_, "its weight");
    spec.weight = initializer_values(weight, label_, "weight");
    spec.bias = initializer_values(bias, label_, "bias");
    if (bias.dims.size() != 1 || bias.dims[0] != d[0]) {
      fail(ErrorKind::kOnnx, label_, ": its bias must have shape [", d[0], "], the file has ",
           dims_text(bias.dims), ".");
    }
    const std::string activation = a.text("activation", "None");
    if (activation != "None" && activation != "ReLU") {
      fail(ErrorKind::kOnnx, label_, ": activation must be 'None' or 'ReLU', the file says '", activation,
           "'.");
    }
    spec.relu = activation == "ReLU";
    spec.bound = a.integer("output_bound", kDefaultBound);
    if (spec.bound < 1)
      fail(ErrorKind::kOnnx, label_, ": output_bound must be at least 1, the file says ", spec.bound, ".");
    read_precisions(a, spec, out);
    spec.amax[0] = a.number("input_dynamic_range", 0.0f);
    spec.weight_amax = a.numbers("weight_dynamic_ranges");
    if (spec.precision == Precision::kInt8) {
      check_range(spec.amax[0], "input_dynamic_range");
      if (spec.weight_amax.size() != size_t(spec.out_channels)) {
        fail(ErrorKind::kOnnx, label_, ": weight_dynamic_ranges needs one entry per output channel (",
             spec.out_channels, "), the file has ", spec.weight_amax.size(),
             ". Calibrate the weights per output channel.");
      }
      for (float amax : spec.weight_amax) check_range(amax, "weight_dynamic_ranges");
      if (!(Size::of(kernel) * spec.in_channels <= 131071)) {
        fail(ErrorKind::kOnnx, label_, ": ", to_string(kernel), " offsets x ", spec.in_channels,
             " input channels may overflow 32-bit ",
             "sums in int8 (the product must stay below 131072). Give this layer fp16 precision.");
      }
    }
    spec.map = map_of(a, spec, kernel, x.set);
    out.channels = spec.out_channels;
    out.set = net_.maps[size_t(spec.map)].output_set;
  }

  void read_precisions(const Attributes& a, NodeSpec& spec, ValueSpec& out) {
    spec.precision = a.precision("precision", Precision::kFloat16);
    spec.output_precision = a.precision("output_precision", Precision::kFloat16);
    out.half = spec.output_precision == Precision::kFloat16;
  }

  void check_range(float amax, const char* what) {
    if (!usable_range(amax)) {
      fail(ErrorKind::kOnnx, label_, ": in int8 its ", what, " must be ", kUsableRange, "; the file has ",
           amax, ". Calibrate the graph before exporting it.");
    }
  }

  /// The kernel map of a convolution: its own, or the one of its rulebook.
  int map_of(const Attributes& a, const NodeSpec& spec, const Triple& kernel, int set) {
    static const Triple ones{1, 1, 1}, zeros{0, 0, 0};
    ConvGeometry g;
    g.kernel = kernel;
    g.stride = a.triple("stride", &ones, 1);
    g.padding = a.triple("padding", &zeros, 0);
    g.dilation = a.triple("dilation", &ones, 1);
    g.subm = a.integer("subm", 0) != 0;
    g.inverse = a.integer("inverse", 0) != 0;
    g.transposed = a.integer("transposed", 0) != 0;
    if (g.subm + g.inverse + g.transposed > 1) {
      fail(ErrorKind::kOnnx, label_, ": at most one of subm, inverse and transposed may be set.");
    }
    const std::string rulebook = a.text("rulebook", "");
    const auto shared = rulebook.empty() ? rulebooks_.end() : rulebooks_.find(rulebook);
    if (g.inverse)
      return inverse_map(spec, g, set, rulebook, shared == rulebooks_.end() ? -1 : shared->second);

    Triple& grid = net_.sets[size_t(set)].shape;
    const Triple said = a.triple("input_spatial_shape", &grid, grid[0] ? 1 : 0);
    if (said[0] == 0) {
      fail(ErrorKind::kOnnx, label_,
           ": the file does not say how large the grid is (no input_spatial_shape). ",
           "Pass spatial_shape=(z, y, x) to the engine.");
    }
    if (grid[0] == 0) grid = said;
    if (said != grid) {
      fail(ErrorKind::kOnnx, label_, ": input_spatial_shape is ", to_string(said),
           ", but the grid of its input is ", to_string(grid), ".");
    }
    g.input_shape = g.output_shape = grid;
    if (g.subm) {
      // A submanifold layer keeps its sites: stride and padding follow from the kernel, whatever the file
      // repeats.
      g.stride = ones;
      g.padding = zeros;
      check_geometry(g, ErrorKind::kOnnx, label_);
      for (size_t i = 0; i < 3; ++i) g.padding[i] = g.kernel[i] / 2 * g.dilation[i];
    } else {
      check_geometry(g, ErrorKind::kOnnx, label_);
      const Triple extra = a.triple("output_padding", &zeros, 0);
      for (size_t i = 0; i < 3; ++i) {
        const int64_t extent = output_extent(g, i, extra[i]);
        if (extent < 1) {
          fail(ErrorKind::kOnnx, label_, ": kernel ", to_string(g.kernel),
               " leaves no output site on a grid of ", to_string(grid), ".");
        }
        if (extent > kMostExtent) {
          fail(ErrorKind::kOnnx, label_, ": its output has ", extent, " cells along an axis; this engine ",
               "numbers ", kMostExtent, " at most.");
        }
        g.output_shape[i] = int32_t(extent);
      }
    }
    check_geometry(g, ErrorKind::kOnnx, label_);
    const Triple said_out = a.triple("output_spatial_shape", &g.output_shape, 1);
    if (said_out != g.output_shape) {
      fail(ErrorKind::kOnnx, label_, ": output_spatial_shape is ", to_string(said_out),
           ", but its geometry gives ", to_string(g.output_shape), ".");
    }
    if (shared != rulebooks_.end()) {
      const MapSpec& map = net_.maps[size_t(shared->second)];
      if (!(map.geometry == g) || map.input_set != set) {
        fail(ErrorKind::kOnnx, label_, ": rulebook '", rulebook, "' was made by '", map.layer,
             "' with another geometry or other sites. Layers that share an indice_key must agree in both.");
      }
      return shared->second;
    }
    return add_map(spec, g, set, -1, rulebook);
  }

  int inverse_map(const NodeSpec& spec, ConvGeometry g, int set, const std::string& rulebook, int partner) {
    if (partner < 0) {
      if (rulebook.empty()) {
        fail(ErrorKind::kOnnx, label_,
             ": an inverse convolution names the convolution that it undoes by its rulebook, and this "
             "rulebook "
             "is empty. An empty one is a kernel map of a layer's own, which no other shares. Give both "
             "layers "
             "the same non-empty indice_key and export the model again.");
      }
      fail(ErrorKind::kOnnx, label_,
           ": an inverse convolution needs the rulebook of an earlier convolution, '", rulebook,
           "' is none. Give both layers the same indice_key and export the model again.");
    }
    const MapSpec& map = net_.maps[size_t(partner)];
    if (map.geometry.subm || map.output_set != set || map.geometry.kernel != g.kernel) {
      fail(ErrorKind::kOnnx, label_, ": its partner '", map.layer,
           "' must be a strided convolution with the same kernel whose outputs are this layer's sites.");
    }
    for (size_t i = 0; i < net_.maps.size(); ++i) {
      if (net_.maps[i].partner == partner) return int(i);
    }
    g = map.geometry;
    g.inverse = true;
    std::swap(g.input_shape, g.output_shape);
    return add_map(spec, g, set, partner, rulebook);
  }

  int add_map(const NodeSpec& spec, const ConvGeometry& g, int set, int partner,
              const std::string& rulebook) {
    MapSpec map;
    map.geometry = g;
    map.input_set = set;
    map.partner = partner;
    map.bound = spec.bound;
    map.rulebook = rulebook;
    map.layer = spec.name;
    const int id = int(net_.maps.size());
    if (g.subm) {
      map.output_set = set;
    } else if (partner >= 0) {
      map.output_set = net_.maps[size_t(partner)].input_set;
    } else {
      map.output_set = int(net_.sets.size());
      net_.sets.push_back({g.output_shape, id});
    }
    net_.maps.push_back(map);
    if (!rulebook.empty() && partner < 0) rulebooks_[rulebook] = id;
    return id;
  }

  void read_add(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
    spec.kind = NodeSpec::Kind::kAdd;
    spec.inputs = {value_id(node, 0), value_id(node, 1)};
    const ValueSpec &x = sparse(spec.inputs[0]), &y = sparse(spec.inputs[1]);
    if (x.set != y.set || x.channels != y.channels) {
      fail(ErrorKind::kOnnx, label_, ": its inputs must lie on the same sites with the same channels; '",
           x.name, "' has ", x.channels, " channels on sites ", x.set, ", '", y.name, "' has ", y.channels,
           " on sites ", y.set, ".");
    }
    read_precisions(a, spec, out);
    spec.amax[0] = a.number("input0_dynamic_range", 0.0f);
    spec.amax[1] = a.number("input1_dynamic_range", 0.0f);
    if (spec.precision == Precision::kInt8) {
      check_range(spec.amax[0], "input0_dynamic_range");
      check_range(spec.amax[1], "input1_dynamic_range");
    }
    out.channels = x.channels;
    out.set = x.set;
  }

  void read_relu(const OnnxNode& node, NodeSpec& spec, ValueSpec& out) {
    spec.kind = NodeSpec::Kind::kRelu;
    spec.inputs = {value_id(node, 0)};
    const ValueSpec& x = sparse(spec.inputs[0]);
    out.channels = x.channels;
    out.set = x.set;
    out.half = x.half;
  }

  void read_scatter(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
    spec.kind = NodeSpec::Kind::kScatterDense;
    spec.inputs = {value_id(node, 0)};
    const ValueSpec& x = sparse(spec.inputs[0]);
    const Triple& grid = net_.sets[size_t(x.set)].shape;
    const Triple said = a.triple("input_spatial_shape", &grid, 1);
    const std::string format = a.text("format", "zyx");
    if (format != "zyx" && format != "xyz") {
      fail(ErrorKind::kOnnx, label_, ": format must be 'zyx' or 'xyz', the file says '", format, "'.");
    }
    for (size_t axis = 0; axis < 3; ++axis) {
      if (said[axis] < grid[axis]) {
        fail(ErrorKind::kOnnx, label_, ": input_spatial_shape is ", to_string(said),
             ", but its sites lie on a larger grid, ", to_string(grid), ". Export the model again.");
      }
    }
    std::vector<int64_t> dims = a.integers("output_shape");
    if (dims.size() != 5 || dims[0] < 1 || dims[0] > std::numeric_limits<int32_t>::max() ||
        dims[1] != x.channels || dims[2] != said[0] || dims[3] != said[1] || dims[4] != said[2]) {
      fail(ErrorKind::kOnnx, label_, ": output_shape must be [batch, ", x.channels, ", ", said[0], ", ",
           said[1], ", ", said[2], "], as input_spatial_shape says; the file has ", dims_text(dims), ".");
    }
    if (Size::of(dims).too_large()) {
      fail(ErrorKind::kOnnx, label_, ": a dense map of ", dims_text(dims),
           " has more values than this engine can number.");
    }
    if (net_.batch && net_.batch != dims[0]) {
      fail(ErrorKind::kOnnx, label_, ": dense maps of one network need the same batch, found ", net_.batch,
           " and ", dims[0], ".");
    }
    net_.batch = narrow(dims[0], "The batch size of a dense map");
    out.dense = true;
    out.channels = x.channels;
    out.half = x.half;
    out.dims = dims;
    out.batch_first = true;
  }

  void read_reshape(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
    spec.kind = NodeSpec::Kind::kReshape;
    spec.inputs = {value_id(node, 0)};
    const ValueSpec& x = dense(spec.inputs[0]);
    spec.dims = a.integers("dims");
    bool positive = !spec.dims.empty() && spec.dims.size() <= kMostAxes;
    for (int64_t d : spec.dims) positive = positive && d > 0;
    const Size before = Size::of(x.dims), after = positive ? Size::of(spec.dims) : Size(0);
    if (before != after || after.too_large()) {
      fail(ErrorKind::kOnnx, label_, ": cannot reshape ", dims_text(x.dims), " to dims ",
           dims_text(spec.dims), ".");
    }
    out.batch_first = x.batch_first && spec.dims[0] == x.dims[0];
    out.dense = true;
    out.channels = x.channels;
    out.half = x.half;
    out.dims = spec.dims;
  }

  void read_transpose(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
    spec.kind = NodeSpec::Kind::kTranspose;
    spec.inputs = {value_id(node, 0)};
    const ValueSpec& x = dense(spec.inputs[0]);
    spec.dims = a.integers("dims");
    std::vector<int64_t> sorted = spec.dims;
    std::sort(sorted.begin(), sorted.end());
    bool permutation = sorted.size() == x.dims.size();
    for (size_t i = 0; permutation && i < sorted.size(); ++i) permutation = sorted[i] == int64_t(i);
    if (!permutation) {
      fail(ErrorKind::kOnnx, label_, ": dims ", dims_text(spec.dims), " is not a permutation of the axes of ",
           dims_text(x.dims), ".");
    }
    out.dense = true;
    out.channels = x.channels;
    out.half = x.half;
    for (int64_t axis : spec.dims) out.dims.push_back(x.dims[size_t(axis)]);
    out.batch_first = x.batch_first && spec.dims[0] == 0;
  }

  const OnnxModel& model_;
  const NetworkOptions& options_;
  MemoryBudget budget_;
  Network net_;
  std::string label_;
  std::map<std::string, int> by_name_, rulebooks_;
};

}  // namespace

Network read_network(const OnnxModel& model, const NetworkOptions& options) {
  return Reader(model, options).read();
}

}  // namespace scn
