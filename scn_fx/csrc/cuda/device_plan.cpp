// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_plan.h"

#include <algorithm>
#include <climits>
#include <stdexcept>

#include "core/error.h"
#include "core/kernel_log.h"
#include "core/memory_budget.h"
#include "core/sizes.h"
#include "cuda/sites/geometry_view.h"
#include "plan/arena.h"

namespace scn::cuda {
namespace {

int64_t tiles_of(const MapView& map) { return (map.output.capacity + kTileRows - 1) / kTileRows; }

}  // namespace

DevicePlan::DevicePlan(const Plan& plan, const CudaOptions& options, int64_t load_limit)
    : plan_(plan), options_(options), limits_(device_limits(options.device)) {
  batch_ = options.max_batch ? options.max_batch : std::max(plan.network.batch, 1);
  if (batch_ < 1 || batch_ > kMostBatch) {
    fail(ErrorKind::kArgument, "The CUDA backend runs batches of 1 to ", kMostBatch, ", max_batch is ",
         batch_, ".");
  }
  if (options.max_sites < 0)
    fail(ErrorKind::kArgument, "max_sites must be at least 1, got ", options.max_sites, ".");
  prepare_sets();
  prepare_maps();
  prepare_arena();
  prepare_dense();
  prepare_global_pools();
  prepare_results();
  prepare_affines();
  prepare_convolutions(load_limit);
  frame_ = DeviceArray<DeviceFrame>(1);
  status_ = DeviceArray<int32_t>(status_entries());
  frame_.zero();
  status_.zero();
  check(cudaDeviceSynchronize(), "preparing the engine");
}

int32_t DevicePlan::status_entries() const {
  return kFound + int32_t(plan_.network.sets.size()) + 2 * int32_t(plan_.steps.size());
}

int32_t* DevicePlan::overflow_of(size_t step) const {
  return status_.data() + kFound + plan_.network.sets.size() + 2 * step;
}

void DevicePlan::prepare_sets() {
  const Network& net = plan_.network;
  std::vector<int32_t> site_limits;
  int64_t largest = 1;
  for (const MapSpec& map : net.maps) largest = std::max(largest, map.bound);
  for (size_t s = 0; s < net.sets.size(); ++s) {
    const Triple& shape = net.sets[s].shape;
    SitesView v = sites_view(shape, batch_, "The network");
    const int64_t cells = (Size(v.lines) * shape[2]).value();
    int64_t bound = net.sets[s].map >= 0 ? net.maps[size_t(net.sets[s].map)].bound
                    : options_.max_sites ? options_.max_sites
                                         : largest;
    const int64_t capacity = std::max<int64_t>(1, std::min({bound, cells, kMostRows}));
    for (const MapSpec& map : net.maps) {
      if (map.geometry.subm && map.input_set == int(s)) bound = std::min(bound, map.bound);
    }
    SetMemory m;
    m.words = DeviceArray<RankWord>((Size(v.lines) * v.words_per_line).value());
    m.line_counts = DeviceArray<int32_t>(v.lines);
    m.group_counts = DeviceArray<int32_t>(group_count(v));
    m.count = DeviceArray<int32_t>(1);
    m.sites = DeviceArray<Site>(capacity);
    m.words.zero();
    m.line_counts.zero();
    m.group_counts.zero();
    m.count.zero();
    v.words = m.words.data();
    v.line_counts = m.line_counts.data();
    v.group_counts = m.group_counts.data();
    v.sites = m.sites.data();
    v.count = m.count.data();
    v.capacity = int32_t(capacity);
    v.number = int32_t(s);
    set_memory_.push_back(std::move(m));
    sets_.push_back(v);
    site_limits.push_back(int32_t(std::min<int64_t>(bound, INT_MAX)));
  }
  site_limits_ = to_device(site_limits);
  row_of_input_ = DeviceArray<int32_t>(sets_[0].capacity);
  for (const MapSpec& map : net.maps) {
    if (map.makes_sites()) growths_.push_back({map.input_set, map.output_set, geometry_view(map.geometry)});
  }
}

void DevicePlan::prepare_maps() {
  const Network& net = plan_.network;
  far_counts_ = DeviceArray<int32_t>(int64_t(net.maps.size()));
  for (size_t i = 0; i < net.maps.size(); ++i) {
    const MapSpec& spec = net.maps[i];
    MapView v{};
    v.geometry = geometry_view(spec.geometry);
    v.input = sets_[size_t(spec.input_set)];
    v.output = sets_[size_t(spec.output_set)];
    const int64_t tiles = tiles_of(v);
    v.tile_bytes = map_tile_bytes(v.geometry.volume);
    // The neighbours that one offset finds for a tile lie apart from those of the next tile (but for a few
    // along x), so the wide stretches of all tiles together hold no more rows than there are.
    v.far_capacity =
        narrow((Size(v.geometry.volume) * ((v.input.capacity + 4 * tiles) / kNoNeighbour)).value(),
               "The number of far slots of a kernel map");
    v.far_count = far_counts_.data() + i;
    maps_.push_back(v);
  }
}

void DevicePlan::prepare_arena() {
  std::vector<int64_t> capacities;
  for (const SitesView& set : sets_) capacities.push_back(set.capacity);
  for (const MapView& map : maps_) {
    map_bytes_.push_back(
        (Size(tiles_of(map)) * map.tile_bytes + Size(map.far_capacity) * kTileRows * sizeof(int32_t))
            .value());
  }
  layout_ = lay_out(plan_, map_bytes_, capacities);
  arena_ = DeviceArray<char>(layout_.bytes);
  for (size_t i = 0; i < maps_.size(); ++i) {
    MapView& map = maps_[i];
    map.tiles = arena_.data() + layout_.maps[i];
    map.far = reinterpret_cast<int32_t*>(map.tiles + tiles_of(map) * map.tile_bytes);
    const MapSpec& spec = plan_.network.maps[i];
    (spec.input_set == 0 && spec.output_set == 0 ? first_maps_ : later_maps_).push_back(map);
  }
}

std::vector<int64_t> DevicePlan::dense_dims(int value) const {
  std::vector<int64_t> dims = plan_.network.values[size_t(value)].dims;
  if (plan_.network.values[size_t(value)].batch_first) dims[0] = batch_;
  return dims;
}

void DevicePlan::prepare_dense() {
  for (const DenseMap& map : plan_.dense)
    dense_.emplace_back((Size::of(dense_dims(map.value)) * element_bytes(map.type)).value());
}

void DevicePlan::prepare_global_pools() {
  Size values = 0;
  for (const Step& step : plan_.steps) {
    if (step.kind != Step::Kind::kGlobalPool) continue;
    const Size own = Size(chunk_place(set_of(step.input).capacity, batch_)) * step.input.channels;
    if (own > values) values = own;
  }
  if (values == Size(0)) return;
  entry_rows_ = DeviceArray<int32_t>(int64_t(batch_) + 1);
  pool_chunks_ = DeviceArray<double>(values.value());
}

void DevicePlan::prepare_results() {
  for (const PlanOutput& output : plan_.outputs) {
    DeviceResult r;
    r.half = plan_.network.values[size_t(output.value)].half;
    if (output.dense >= 0) {
      r.dims = dense_dims(output.value);
      r.data = dense_[size_t(output.dense)].data();
      packed_.emplace_back();
    } else {
      const SitesView& set = set_of(output.rows);
      const ElementType type = plan_.storage_of(output.rows).type;
      packed_.emplace_back((Size(set.capacity) * output.rows.channels * element_bytes(type)).value());
      r.sparse = true;
      r.dims = {set.capacity, output.rows.channels};
      r.data = packed_.back().data();
      r.count = set.count;
      r.sites = set.sites;
      if (set.number == 0) {
        if (!packed_sites_.size()) packed_sites_ = DeviceArray<Site>(set.capacity);
        r.sites = packed_sites_.data();
      }
    }
    results_.push_back(std::move(r));
  }
}

void DevicePlan::prepare_affines() {
  for (const NodeSpec& node : plan_.network.nodes) {
    affines_.emplace_back();
    if (!node.scale.empty()) affines_.back() = {to_device(node.scale), to_device(node.shift)};
  }
}

void DevicePlan::prepare_convolutions(int64_t load_limit) {
  const Network& net = plan_.network;
  const bool prints = print_kernels_wanted();
  convolutions_.resize(plan_.steps.size());
  // On the host; the device refuses by itself what it does not have.
  MemoryBudget budget(load_limit);
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& step = plan_.steps[i];
    if (step.kind != Step::Kind::kConvolution) continue;
    const NodeSpec& n = plan_.node_of(step);
    ConvProblem p;
    p.precision = n.precision;
    p.in_channels = n.in_channels;
    p.out_channels = n.out_channels;
    p.offsets = net.maps[size_t(n.map)].geometry.volume();
    p.in_bytes = stride_of(step.input);
    p.capacity = maps_[size_t(n.map)].output.capacity;
    p.finish = finish_kind(n.precision, finish_of(i));
    budget.take(Size(n.weight.size()) * sizeof(float), n.name, "its weight");
    convolutions_[i] =
        device_convolution(p,
                           {n.weight.data(), n.bias.data(), n.out_channels, p.offsets, n.in_channels,
                            n.precision, n.amax[0], n.weight_amax.data(), n.name},
                           limits_);
    if (prints) log_kernel(n.name, p.text(), kernel_of(i));
  }
}

std::string DevicePlan::kernel_of(size_t index) const {
  const ConvConfig& config = convolutions_[index].config;
  return config.kernel ? config.text() : "";
}

BufferBytes DevicePlan::buffer_bytes() const {
  BufferBytes b;
  for (const DeviceConvolution& c : convolutions_) b.weights += c.bytes();
  for (const DeviceAffine& a : affines_) b.weights += a.scale.bytes() + a.shift.bytes();
  // Activations mostly lie where maps lay: what is said of them is what they need in addition.
  Size maps = 0;
  for (const int64_t bytes : map_bytes_) maps += bytes;
  b.kernel_maps = std::min(maps.value(), arena_.bytes());
  b.activations = arena_.bytes() - b.kernel_maps;
  for (const auto& dense : dense_) b.activations += dense.bytes();
  for (const auto& packed : packed_) b.activations += packed.bytes();
  b.activations += entry_rows_.bytes() + pool_chunks_.bytes();
  for (const SetMemory& s : set_memory_) {
    b.sites += s.words.bytes() + s.line_counts.bytes() + s.group_counts.bytes() + s.sites.bytes();
  }
  b.sites += row_of_input_.bytes() + packed_sites_.bytes();
  return b;
}

}  // namespace scn::cuda
