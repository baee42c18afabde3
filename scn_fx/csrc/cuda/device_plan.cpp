// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_plan.h"

#include <algorithm>
#include <climits>
#include <stdexcept>

#include "cuda/geometry_view.h"
#include "error.h"
#include "memory_budget.h"
#include "plan/arena.h"
#include "sizes.h"

namespace scn::cuda {
namespace {

int64_t tiles_of(const MapView& map) { return (map.output.capacity + kTileRows - 1) / kTileRows; }

}  // namespace

DevicePlan::DevicePlan(const Plan& plan, const CudaOptions& options)
    : plan_(plan), options_(options), limits_(device_limits(options.device)) {
  batch_ = options.max_batch ? options.max_batch : std::max(plan.network.batch, 1);
  if (batch_ < 1 || batch_ > kMostBatch) {
    fail(ErrorKind::kArgument, "The CUDA backend runs batches of 1 to ", kMostBatch, ", max_batch is ",
         batch_, ".");
  }
  if (options.max_sites < 0)
    fail(ErrorKind::kArgument, "max_sites must be at least 1, got ", options.max_sites, ".");
  prepare_weights_of_layers();
  prepare_sets();
  prepare_maps();
  find_scattered();
  find_forms();
  prepare_arena();
  prepare_dense();
  prepare_results();
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

void DevicePlan::prepare_weights_of_layers() {
  const Network& net = plan_.network;
  weights_.resize(net.nodes.size());
  // On the host; the device refuses by itself what it does not have.
  MemoryBudget budget(options_.load_limit);
  for (size_t i = 0; i < net.nodes.size(); ++i) {
    const NodeSpec& n = net.nodes[i];
    if (n.kind != NodeSpec::Kind::kConvolution) continue;
    const int32_t volume = net.maps[size_t(n.map)].geometry.volume();
    budget.take(Size(n.weight.size()) * sizeof(float), n.name, "its weight");
    const Size before = budget.taken();
    budget.take(prepared_bytes(n.precision, n.out_channels, volume, n.in_channels), n.name,
                "its weight as it is checked");
    budget.go_back(before);
    weights_[i] = device_weights({n.weight.data(), n.bias.data(), n.out_channels, volume, n.in_channels,
                                  n.precision, n.amax[0], n.weight_amax.data(), n.name},
                                 limits_);
  }
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
    if (map.partner >= 0 || map.geometry.subm) continue;
    growths_.push_back({map.input_set, map.output_set, geometry_view(map.geometry)});
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

void DevicePlan::find_forms() {
  read_as_float_.assign(plan_.storages.size(), 0);
  for (const Step& step : plan_.steps) {
    for (const int node : {step.kind == Step::Kind::kAdd ? -1 : step.node,
                           step.kind == Step::Kind::kAdd ? step.node : step.add}) {
      if (node < 0 || plan_.network.nodes[size_t(node)].precision != Precision::kFloat32) continue;
      const NodeSpec::Kind kind = plan_.network.nodes[size_t(node)].kind;
      if (kind == NodeSpec::Kind::kConvolution) read_as_float_[size_t(step.input)] = 1;
      if (kind != NodeSpec::Kind::kAdd) continue;
      read_as_float_[size_t(step.other)] = 1;
      if (step.kind == Step::Kind::kAdd) read_as_float_[size_t(step.input)] = 1;
    }
  }
}

void DevicePlan::prepare_arena() {
  // Maps are made at the beginning of a frame, all of them. A kernel writes nothing before all earlier ones
  // have ended, so what a step writes may lie where the step before found its map.
  const int steps = int(plan_.steps.size());
  std::vector<int> last(maps_.size(), steps);  // of a map that no step reads: nobody waits until it is made
  for (int i = 0; i < steps; ++i) {
    const Step& step = plan_.steps[size_t(i)];
    if (step.kind == Step::Kind::kConvolution) last[size_t(plan_.network.nodes[size_t(step.node)].map)] = i;
  }
  std::vector<Span> spans;
  for (size_t i = 0; i < maps_.size(); ++i) {
    const MapView& map = maps_[i];
    const int64_t bytes =
        (Size(tiles_of(map)) * map.tile_bytes + Size(map.far_capacity) * kTileRows * sizeof(int32_t)).value();
    spans.push_back({bytes, 0, last[i], 0});
    map_bytes_ += bytes;
  }
  for (size_t i = 0; i < plan_.storages.size(); ++i) {
    const Storage& s = plan_.storages[i];
    const int64_t rows = scattered_[i] >= 0 ? 0 : sets_[size_t(s.set)].capacity;
    spans.push_back({(Size(rows) * stride_of(int(i))).value(), s.first, s.last, 0});
  }
  arena_ = DeviceArray<char>(place_spans(spans));
  for (size_t i = 0; i < maps_.size(); ++i) {
    MapView& map = maps_[i];
    map.tiles = arena_.data() + spans[i].offset;
    map.far = reinterpret_cast<int32_t*>(map.tiles + tiles_of(map) * map.tile_bytes);
    const MapSpec& spec = plan_.network.maps[i];
    (spec.input_set == 0 && spec.output_set == 0 ? first_maps_ : later_maps_).push_back(map);
  }
  for (size_t i = maps_.size(); i < spans.size(); ++i) storage_at_.push_back(spans[i].offset);
}

void DevicePlan::find_scattered() {
  scattered_.assign(plan_.storages.size(), -1);
  for (size_t s = 0; s < plan_.storages.size(); ++s) {
    int reader = -1, readers = 0;
    for (size_t i = 0; i < plan_.steps.size(); ++i) {
      const Step& step = plan_.steps[i];
      if (step.input != int(s) && step.other != int(s)) continue;
      reader = int(i);
      ++readers;
    }
    for (const PlanOutput& out : plan_.outputs) readers += out.storage == int(s);
    const Step& producer = plan_.steps[size_t(plan_.storages[s].first)];
    if (readers == 1 && reader >= 0 && plan_.steps[size_t(reader)].kind == Step::Kind::kScatterDense &&
        producer.kind == Step::Kind::kConvolution && !plan_.trace) {
      scattered_[s] = reader;
    }
  }
}

std::vector<int64_t> DevicePlan::dense_dims(int value) const {
  std::vector<int64_t> dims = plan_.network.values[size_t(value)].dims;
  if (plan_.network.values[size_t(value)].batch_first) dims[0] = batch_;
  return dims;
}

void DevicePlan::prepare_dense() {
  for (const DenseMap& map : plan_.dense) {
    dense_.emplace_back((Size::of(dense_dims(map.value)) * (map.half ? 2 : 4)).value());
  }
}

void DevicePlan::prepare_results() {
  const Network& net = plan_.network;
  for (const PlanOutput& output : plan_.outputs) {
    const ValueSpec& value = net.values[size_t(output.value)];
    DeviceResult r;
    r.half = value.half;
    if (output.dense >= 0) {
      r.dims = dense_dims(output.value);
      r.data = dense_[size_t(output.dense)].data();
      packed_.emplace_back();
    } else {
      const Storage& s = plan_.storages[size_t(output.storage)];
      const SitesView& set = sets_[size_t(s.set)];
      if ((form_of(output.storage) == Form::kHalf) != r.half)
        throw std::logic_error("a result is read as another type than its rows have");
      packed_.emplace_back((Size(set.capacity) * s.channels * (r.half ? 2 : 4)).value());
      r.sparse = true;
      r.dims = {set.capacity, s.channels};
      r.data = packed_.back().data();
      r.count = set.count;
      r.sites = set.sites;
      if (s.set == 0) {
        if (!packed_sites_.size()) packed_sites_ = DeviceArray<Site>(set.capacity);
        r.sites = packed_sites_.data();
      }
    }
    results_.push_back(std::move(r));
  }
}

bool DevicePlan::is_scatter_target(int dense) const {
  for (const Step& step : plan_.steps) {
    if (step.kind == Step::Kind::kScatterDense && step.dense_out == dense) return true;
  }
  return false;
}

bool DevicePlan::needs_side(const Step& step) const {
  if (step.kind == Step::Kind::kScatterDense || step.kind == Step::Kind::kTranspose) return true;
  if (step.kind != Step::Kind::kConvolution) return false;
  for (int s : step.stores) {
    if (scattered_[size_t(s)] >= 0) return true;
  }
  const MapSpec& map = plan_.network.maps[size_t(plan_.network.nodes[size_t(step.node)].map)];
  return map.input_set != 0 || map.output_set != 0;
}

EmissionView DevicePlan::dense_emission(const Step& scatter) const {
  const NodeSpec& n = plan_.network.nodes[size_t(scatter.node)];
  const ValueSpec& out = plan_.network.values[size_t(n.output)];
  const Storage& s = plan_.storages[size_t(scatter.input)];
  EmissionView e{};
  e.form = out.half ? Form::kHalf : Form::kFloat;
  e.relu = s.relu;
  e.through_half = s.half;
  e.dense = true;
  e.columns = s.channels;
  const Size cells = Size(out.dims[2]) * out.dims[3] * out.dims[4];
  if (cells > INT_MAX) {
    fail(ErrorKind::kArgument, n.name,
         ": the CUDA backend writes dense maps of up to 2^31 - 1 cells, this has ", cells.text(),
         ". Use larger voxels or a smaller range.");
  }
  if (scattered_[size_t(scatter.input)] < 0 && (form_of(scatter.input) == Form::kHalf) != out.half)
    throw std::logic_error("a dense map is read as another type than its rows have");
  e.cells = int32_t(cells.value());
  e.height = narrow(out.dims[3], "The height of a dense map");
  e.width = narrow(out.dims[4], "The width of a dense map");
  e.out = dense_[size_t(scatter.dense_out)].data();
  return e;
}

FinishView DevicePlan::finish_of(size_t index) const {
  const Step& step = plan_.steps[index];
  FinishView f{};
  f.overflow = overflow_of(index);
  if (step.stores.size() > size_t(kMaxEmissions)) {
    fail(ErrorKind::kArgument, plan_.network.nodes[size_t(step.node)].name, ": its result is read in ",
         step.stores.size(), " different forms (ranges), the CUDA backend stores up to ", kMaxEmissions,
         ". Calibrate its consumers with one range, or run it on the CPU.");
  }
  for (int id : step.stores) {
    const Storage& s = plan_.storages[size_t(id)];
    EmissionView& e = f.emissions[f.emission_count++];
    if (scattered_[size_t(id)] >= 0) {
      e = dense_emission(plan_.steps[size_t(scattered_[size_t(id)])]);
      continue;
    }
    e.form = form_of(id);
    e.relu = s.relu;
    e.through_half = s.half;
    e.factor = s.format == Format::kInt8 ? 127.0f / s.amax : 0.0f;
    e.stride = stride_of(id);
    e.columns = e.stride / form_bytes(e.form);
    e.out = rows(id);
  }
  return f;
}

ResidualView DevicePlan::residual_of(const Step& step, const NodeSpec& add) const {
  ResidualView r{};
  r.other = rows(step.other);
  r.stride = stride_of(step.other);
  r.self_is_second = step.self_is_second;
  if (add.precision == Precision::kInt8) {
    const AddScales scales = add_scales(add, step.self_is_second);
    r.kind = Operand::kInt8;
    r.self_factor = scales.self_factor;
    r.self_scale = scales.self_scale;
    r.other_scale = scales.other_scale;
  } else {
    r.kind = form_of(step.other) == Form::kHalf ? Operand::kHalf : Operand::kFloat;
    r.through_half = add.precision == Precision::kFloat16;
  }
  return r;
}

LoadFewView DevicePlan::load_few() const {
  FinishView f = finish_of(0);
  f.channels = plan_.network.values[size_t(plan_.network.features)].channels;
  return load_few_view(frame_.data(), sets_[0], f.channels, f, row_of_input_.data(), status_.data());
}

void DevicePlan::run_step(size_t index, bool after_maps, cudaStream_t stream) const {
  const Step& step = plan_.steps[index];
  switch (step.kind) {
    case Step::Kind::kLoad: {
      FinishView f = finish_of(index);
      f.channels = plan_.network.values[size_t(plan_.network.features)].channels;
      return load_rows(frame_.data(), sets_[0], f.channels, f, row_of_input_.data(), status_.data(), stream);
    }
    case Step::Kind::kConvolution: {
      const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
      FinishView f = finish_of(index);
      f.relu = n.relu;
      f.channels = n.out_channels;
      if (step.add >= 0) {
        f.through_half = n.output_precision == Precision::kFloat16;
        f.residual = residual_of(step, plan_.network.nodes[size_t(step.add)]);
      }
      return convolve(maps_[size_t(n.map)], rows(step.input), weights_[size_t(step.node)].view, f, after_maps,
                      limits_, stream);
    }
    case Step::Kind::kAdd: {
      const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
      const Storage& self = plan_.storages[size_t(step.input)];
      FinishView f = finish_of(index);
      f.channels = self.channels;
      f.residual = residual_of(step, n);
      const Operand kind = form_of(step.input) == Form::kInt8   ? Operand::kInt8
                           : form_of(step.input) == Form::kHalf ? Operand::kHalf
                                                                : Operand::kFloat;
      return add_rows(rows(step.input), kind, stride_of(step.input), sets_[size_t(self.set)], f, stream);
    }
    case Step::Kind::kScatterDense: {
      if (scattered_[size_t(step.input)] >= 0) return;  // the convolution has done it
      const Storage& s = plan_.storages[size_t(step.input)];
      return scatter_rows(rows(step.input), stride_of(step.input), dense_emission(step), sets_[size_t(s.set)],
                          stream);
    }
    case Step::Kind::kTranspose:
      return transpose(step, stream);
  }
}

void DevicePlan::transpose(const Step& step, cudaStream_t stream) const {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  const std::vector<int64_t> dims = dense_dims(n.inputs[0]);
  if (dims.size() > size_t(TransposeView::kMaxAxes)) {
    fail(ErrorKind::kArgument, n.name, ": the CUDA backend transposes up to ", TransposeView::kMaxAxes,
         " axes, this has ", dims.size(), ".");
  }
  TransposeView v{};
  v.axes = int32_t(dims.size());
  v.element = plan_.network.values[size_t(n.output)].half ? 2 : 4;
  v.count = Size::of(dims).value();
  std::vector<int64_t> strides(dims.size(), 1);
  for (size_t axis = dims.size() - 1; axis-- > 0;) strides[axis] = strides[axis + 1] * dims[axis + 1];
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    v.out_dims[axis] = dims[size_t(n.dims[axis])];
    v.in_strides[axis] = strides[size_t(n.dims[axis])];
  }
  transpose_dense(dense_[size_t(step.dense_in)].data(), dense_[size_t(step.dense_out)].data(), v, stream);
}

BufferBytes DevicePlan::buffer_bytes() const {
  BufferBytes b;
  for (const DeviceWeights& w : weights_) b.weights += w.bytes();
  // Activations mostly lie where maps lay: what is said of them is what they need in addition.
  b.kernel_maps = std::min(map_bytes_, arena_.bytes());
  b.activations = arena_.bytes() - b.kernel_maps;
  for (const auto& dense : dense_) b.activations += dense.bytes();
  for (const auto& packed : packed_) b.activations += packed.bytes();
  for (const SetMemory& s : set_memory_) {
    b.sites += s.words.bytes() + s.line_counts.bytes() + s.group_counts.bytes() + s.sites.bytes();
  }
  b.sites += row_of_input_.bytes() + packed_sites_.bytes();
  return b;
}

void DevicePlan::reset_sets(cudaStream_t stream) const {
  for (const SetMemory& m : set_memory_) {
    check(cudaMemsetAsync(m.words.data(), 0, size_t(m.words.bytes()), stream), "clearing sites");
    check(cudaMemsetAsync(m.line_counts.data(), 0, size_t(m.line_counts.bytes()), stream), "clearing sites");
  }
}

void DevicePlan::clear_dense(cudaStream_t stream) const {
  for (size_t d = 0; d < dense_.size(); ++d) {
    if (!is_scatter_target(int(d))) continue;
    check(cudaMemsetAsync(dense_[d].data(), 0, size_t(dense_[d].bytes()), stream), "clearing a dense map");
  }
}

void DevicePlan::pack_results(cudaStream_t stream) const {
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    const PlanOutput& output = plan_.outputs[i];
    if (output.storage < 0) continue;
    const Storage& s = plan_.storages[size_t(output.storage)];
    pack_rows(frame_.data(), rows(output.storage), stride_of(output.storage),
              form_bytes(form_of(output.storage)), s.channels, sets_[size_t(s.set)],
              s.set == 0 ? row_of_input_.data() : nullptr, packed_[i].data(),
              s.set == 0 ? packed_sites_.data() : nullptr, stream);
  }
}

}  // namespace scn::cuda
