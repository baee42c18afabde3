// SPDX-License-Identifier: Apache-2.0
// A network in the libspconv dialect with everything decided and checked: shapes, sites, precisions, ranges.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/activation.h"
#include "core/pooling.h"
#include "core/types.h"
#include "onnx/model.h"

namespace scn {

/// Sites that values live on. Set 0 is the engine's input; others are reached by the convolution of `map`, or
/// by all maps that make the set, of which it is the first.
struct SiteSetSpec {
  Triple shape{0, 0, 0};
  int map = -1;
};

/// A kernel map shared by the layers that name the same rulebook.
struct MapSpec {
  ConvGeometry geometry;
  int input_set = 0, output_set = 0;
  int partner = -1;   // inverse: the map whose two sides are swapped
  int64_t bound = 0;  // of the layer that introduces the map
  std::string rulebook, layer;

  /// Whether its output sites are those that it reaches.
  bool makes_sites() const { return partner < 0 && !geometry.subm; }
};

struct ValueSpec {
  std::string name;
  int producer = -1;  // node, or -1 for the engine's features
  int channels = 0;   // -1 for the features of a network without convolutions
  int set = 0;        // sparse values
  bool dense = false;
  bool half = true;           // rounded to float16 before anyone sees it (output_precision fp16)
  std::vector<int64_t> dims;  // dense values, with the exported batch
  bool batch_first = false;   // dense values: dims[0] is the batch, which may be another one in a frame
};

enum class NodeKind {
  kConvolution,
  kAdd,
  kMultiply,
  kActivation,
  kAffine,
  kConcat,
  kGroupNorm,
  kPool,
  kUnion,
  kGlobalPool,
  kScatterDense,
  kReshape,
  kTranspose
};

/// Zeros behind scales and shifts: kernels read them as far as they store columns.
constexpr int32_t kAffinePadding = 128;

struct NodeSpec {
  NodeKind kind;
  const char* op_type = "";  // as in the file
  std::string name;
  std::vector<int> inputs;
  int output = -1;

  ElementType precision = ElementType::kFloat16, output_precision = ElementType::kFloat16;
  Activation activation;  // kConvolution, kActivation

  Pooling pooling = Pooling::kMax;  // kPool, kGlobalPool

  // kConvolution, kPool
  int map = -1;
  // kUnion, by input: to the output's sites
  std::vector<int> maps;
  // kConvolution, kPool, kUnion
  int64_t bound = 0;

  // kConvolution
  int32_t in_channels = 0, out_channels = 0;
  std::vector<float> weight;  // [out, kz, ky, kx, in], values of float16
  std::vector<float> bias;    // [out]
  std::vector<float> weight_amax;
  // kConvolution uses [0], kAdd and kMultiply both
  float amax[2] = {0.0f, 0.0f};

  // kGroupNorm
  int32_t groups = 1;
  float epsilon = 0.0f;

  // kAffine, kGroupNorm: [channels], with zeros behind
  std::vector<float> scale, shift;

  // kReshape: new dims; kTranspose: permutation
  std::vector<int64_t> dims;
};

/// Of the keys of Network::grid_entries.
constexpr const char* kGridPrefix = "scn_fx.grid.";

struct Network {
  std::vector<NodeSpec> nodes;  // in the file's order, which is topological
  std::vector<ValueSpec> values;
  std::vector<SiteSetSpec> sets;
  std::vector<MapSpec> maps;
  std::vector<int> outputs;  // values
  int features = -1;         // value
  int ndim = 3;              // dimensions; the leading axes of all grids have one cell where it is less
  int32_t batch = 0;         // of the exported dense map, 0 if there is none
  std::string axes;          // order of the columns of indices behind the batch, "zyx" or "xyz"
  std::map<std::string, std::string> grid_entries;  // metadata about the voxel grid, see plan/point_grid.h
};

struct NetworkOptions {
  bool float32 = false;           // run everything in float32, whatever the file says
  Triple spatial_shape{0, 0, 0};  // grid of the input, for files that do not say
  int64_t load_limit = 0;         // bytes of memory, see MemoryLimits
};

/// Reads and checks a model. Throws kOnnx with the node's name for whatever this engine cannot run, and
/// kMemory for weights beyond the limit.
Network read_network(const OnnxModel& model, const NetworkOptions& options);

}  // namespace scn
