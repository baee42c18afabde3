// SPDX-License-Identifier: Apache-2.0
// Convolutions, pooling, and their kernel maps.
#include <utility>

#include "core/error.h"
#include "core/geometry.h"
#include "core/layer.h"
#include "core/numerics.h"
#include "core/sizes.h"
#include "plan/initializers.h"
#include "plan/reader.h"

namespace scn {
namespace {

// libspconv's own default bound; its exporters write it into every convolution.
constexpr int64_t kDefaultBound = 200000;

}  // namespace

const OnnxTensor& NetworkReader::initializer(const OnnxNode& node, size_t input, const char* what) {
  if (input >= node.inputs.size())
    fail(ErrorKind::kOnnx, label_, ": its ", what, " (input ", input, ") is missing.");
  const auto found = model_.initializers.find(node.inputs[input]);
  if (found == model_.initializers.end()) {
    fail(ErrorKind::kOnnx, label_, ": its ", what, " '", node.inputs[input],
         "' is not an initializer of the file.");
  }
  return found->second;
}

void NetworkReader::read_convolution(const OnnxNode& node, const Attributes& a, NodeSpec& spec,
                                     ValueSpec& out) {
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
  if (!weight.prepared) {
    budget_.take(Size::of(d) * sizeof(float), label_, "its weight");
    spec.weight = initializer_values(weight, label_, "weight");
    spec.bias = initializer_values(bias, label_, "bias");
  }
  if (bias.dims.size() != 1 || bias.dims[0] != d[0]) {
    fail(ErrorKind::kOnnx, label_, ": its bias must have shape [", d[0], "], the file has ",
         dims_text(bias.dims), ".");
  }
  spec.activation = a.activation();
  read_bound(a, spec);
  read_precisions(a, spec, out);
  spec.amax[0] = a.number("input_dynamic_range", 0.0f);
  spec.weight_amax = a.numbers("weight_dynamic_ranges");
  if (spec.precision == ElementType::kInt8) {
    check_range(spec.amax[0], "input_dynamic_range");
    if (spec.weight_amax.size() != size_t(spec.out_channels)) {
      fail(ErrorKind::kOnnx, label_, ": weight_dynamic_ranges needs one entry per output channel (",
           spec.out_channels, "), the file has ", spec.weight_amax.size(),
           ". Calibrate the weights per output channel.");
    }
    for (float amax : spec.weight_amax) check_range(amax, "weight_dynamic_ranges");
    if (Size::of(kernel) * spec.in_channels > kMostInt8Terms) {
      fail(ErrorKind::kOnnx, label_, ": ", to_string(kernel), " offsets x ", spec.in_channels,
           " input channels may overflow 32-bit ", "sums in int8 (the product must stay below ",
           kMostInt8Terms + 1, "). Give this layer fp16 precision.");
    }
  }
  spec.map = map_of(a, spec, kernel, x.set);
  out.channels = spec.out_channels;
  out.set = net_.maps[size_t(spec.map)].output_set;
}

void NetworkReader::read_bound(const Attributes& a, NodeSpec& spec) {
  spec.bound = a.integer("output_bound", kDefaultBound);
  if (spec.bound < 1)
    fail(ErrorKind::kOnnx, label_, ": output_bound must be at least 1, the file says ", spec.bound, ".");
}

void NetworkReader::read_pool(const OnnxNode& node, const Attributes& a, NodeSpec& spec, ValueSpec& out) {
  spec.inputs = {value_id(node, 0)};
  const ValueSpec x = sparse(spec.inputs[0]);
  spec.pooling = read_kind(a);
  read_bound(a, spec);
  spec.map = map_of(a, spec, a.triple("kernel_size", nullptr, 1), x.set);
  out.channels = x.channels;
  out.half = x.half;
  out.set = net_.maps[size_t(spec.map)].output_set;
}

Pooling NetworkReader::read_kind(const Attributes& a) {
  const std::string kind = a.text("kind", "");
  if (kind != "max" && kind != "mean" && kind != "sum")
    fail(ErrorKind::kOnnx, label_, ": kind must be 'max', 'mean' or 'sum', the file says '", kind, "'.");
  return kind == "max" ? Pooling::kMax : kind == "mean" ? Pooling::kMean : Pooling::kSum;
}

/// The kernel map of a convolution or pooling layer: its own, or the one of its rulebook.
int NetworkReader::map_of(const Attributes& a, const NodeSpec& spec, const Triple& kernel, int set) {
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
  const auto of_union = unions_.find(rulebook);
  if (of_union != unions_.end()) {
    fail(ErrorKind::kOnnx, label_, ": rulebook '", rulebook, "' was made by '",
         net_.maps[size_t(of_union->second[0])].layer,
         "', a union of sites. Give this layer a rulebook of its own.");
  }
  const auto shared = rulebook.empty() ? rulebooks_.end() : rulebooks_.find(rulebook);
  if (g.inverse) return inverse_map(spec, g, set, rulebook, shared == rulebooks_.end() ? -1 : shared->second);

  Triple& grid = net_.sets[size_t(set)].shape;
  const Triple said = a.triple("input_spatial_shape", &grid, grid[0] ? 1 : 0);
  if (said[0] == 0) {
    fail(ErrorKind::kOnnx, label_, ": the file does not say how large the grid is (no input_spatial_shape). ",
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
    g.padding = subm_padding(g.kernel, g.dilation);
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
  const int map = add_map(spec, g, set, g.subm ? set : -1, -1, rulebook);
  if (!rulebook.empty()) rulebooks_[rulebook] = map;
  return map;
}

int NetworkReader::inverse_map(const NodeSpec& spec, ConvGeometry g, int set, const std::string& rulebook,
                               int partner) {
  if (partner < 0) {
    if (rulebook.empty()) {
      fail(ErrorKind::kOnnx, label_,
           ": an inverse convolution names the convolution that it undoes by its rulebook, and this "
           "rulebook "
           "is empty. An empty one is a kernel map of a layer's own, which no other shares. Give both "
           "layers "
           "the same non-empty indice_key and export the model again.");
    }
    fail(ErrorKind::kOnnx, label_, ": an inverse convolution needs the rulebook of an earlier convolution, '",
         rulebook, "' is none. Give both layers the same indice_key and export the model again.");
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
  return add_map(spec, g, set, map.input_set, partner, rulebook);
}

int NetworkReader::add_map(const NodeSpec& spec, const ConvGeometry& g, int set, int to, int partner,
                           const std::string& rulebook) {
  MapSpec map;
  map.geometry = g;
  map.input_set = set;
  map.partner = partner;
  map.bound = spec.bound;
  map.rulebook = rulebook;
  map.layer = spec.name;
  const int id = int(net_.maps.size());
  map.output_set = to < 0 ? int(net_.sets.size()) : to;
  if (to < 0) net_.sets.push_back({g.output_shape, id});
  net_.maps.push_back(map);
  return id;
}

}  // namespace scn
