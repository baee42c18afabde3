// SPDX-License-Identifier: Apache-2.0
#include "cpu/executor.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "error.h"
#include "half.h"

namespace scn {
namespace {

constexpr int64_t kRowsPerChunk = 1024;
const std::string kInput = "The input";

/// Whether rows are stored as float16. Those of few channels, which input layers read, are not: they would
/// gain little memory, and those layers do too little with a value to convert it first.
bool stored_as_half(const Storage& s) { return s.format == Format::kFloat32 && s.half && s.channels > 8; }

/// dims of a dense value with the exported batch, their first entry, replaced by the frame's; into `out`,
/// which is returned.
const std::vector<int64_t>& with_batch(const ValueSpec& value, int32_t exported, int32_t batch,
                                       const std::string& layer, std::vector<int64_t>* out) {
  out->assign(value.dims.begin(), value.dims.end());
  if (batch == exported) return *out;
  if (!value.batch_first) {
    fail(ErrorKind::kArgument, layer,
         ": its shape does not start with the batch, so it only runs with the exported batch of ", exported,
         ", not ", batch, ".");
  }
  (*out)[0] = batch;
  return *out;
}

}  // namespace

CpuExecutor::FrameMemory::FrameMemory(const Plan& plan)
    : sets(plan.network.sets.size()),
      maps(plan.network.maps.size()),
      slots(size_t(plan.slots)),
      dense(plan.dense.size()) {}

CpuExecutor::CpuExecutor(const Plan& plan, int threads, const MemoryLimits& limits)
    : plan_(plan), kernels_(select_kernels()), pool_(threads), budget_(limits.all) {
  load_network(limits);
  count_smallest_frame();
}

void CpuExecutor::load_network(const MemoryLimits& limits) {
  MemoryBudget budget(limits.load);
  weights_.resize(plan_.network.nodes.size());
  Size scratch = 0;
  std::string widest;
  for (size_t i = 0; i < weights_.size(); ++i) {
    const NodeSpec& n = plan_.network.nodes[i];
    if (n.kind != NodeSpec::Kind::kConvolution) continue;
    const int32_t offsets = plan_.network.maps[size_t(n.map)].geometry.volume();
    budget.take(prepared_bytes(n.precision, n.out_channels, offsets, n.in_channels) +
                    Size(n.weight.size()) * sizeof(float),
                n.name, "its weight");
    weights_[i] = prepare_weights({n.weight.data(), n.bias.data(), n.out_channels, offsets, n.in_channels,
                                   n.precision, n.amax[0], n.weight_amax.data(), n.name});
    const Size own = convolution_scratch(n.out_channels, offsets, n.in_channels) * pool_.size();
    if (own > scratch) {
      scratch = own;
      widest = n.name;
    }
  }
  for (const MapSpec& map : plan_.network.maps) {
    if (map.partner < 0) budget.take(reach_bytes(map.geometry), map.layer, "what its offsets connect");
    reach_.push_back(map.partner >= 0 ? Reach{} : make_reach(map.geometry));
  }
  budget_.take(budget.taken(), kInput, "the weights of its layers");
  budget_.take(scratch, widest, "the sums of its output channels");
  loaded_ = budget_.taken();
}

/// Refuses networks that no frame can run: what grids and dense maps take depends on the batch alone.
void CpuExecutor::count_smallest_frame() {
  const Network& net = plan_.network;
  for (const SiteSetSpec& set : net.sets) {
    const std::string& layer = set.map < 0 ? kInput : net.maps[size_t(set.map)].layer;
    budget_.take(SiteIndex::bitmap_bytes(set.shape, 1), layer, "the index of its grid");
  }
  for (const Step& step : plan_.steps) {
    if (step.dense_out < 0) continue;
    const NodeSpec& n = net.nodes[size_t(step.node)];
    budget_.take(dense_bytes(net.values[size_t(n.output)], 1), n.name, "its dense map");
    if (step.last_use)
      budget_.release(dense_bytes(net.values[size_t(plan_.dense[size_t(step.dense_in)].value)], 1));
  }
  budget_.go_back(loaded_);
}

/// Of a dense value in a frame of `batch`, in bytes.
Size CpuExecutor::dense_bytes(const ValueSpec& value, int32_t batch) const {
  Size all = value.half ? 2 : 4;
  for (size_t axis = 0; axis < value.dims.size(); ++axis)
    all *= axis == 0 && value.batch_first ? batch : value.dims[axis];
  return all;
}

std::unique_ptr<char[]> CpuExecutor::dense_memory(Size bytes, const std::string& layer) {
  budget_.take(bytes, layer, "its dense map");
  try {
    return std::unique_ptr<char[]>(new char[bytes.count()]);
  } catch (const std::bad_alloc&) {
    fail(ErrorKind::kMemory, layer, ": there is no memory for a dense map of ", bytes.value(),
         " bytes. Use a smaller batch size, larger voxels or a smaller range.");
  }
}

std::vector<Result> CpuExecutor::run(const FrameView& frame, std::vector<StageTime>* times) {
  static const char* const kinds[] = {"load", "convolution", "add", "scatter_dense", "transpose"};
  StageTimer watch(times);
  check_frame(frame);
  if (!held_) held_ = std::make_unique<FrameMemory>(plan_);
  budget_.go_back(loaded_);
  build_maps(frame, watch);
  reserve_slots();
  for (const Step& step : plan_.steps) {
    run_step(step, frame);
    watch.stop(kinds[size_t(step.kind)],
               step.node < 0 ? "input" : plan_.network.nodes[size_t(step.node)].name.c_str());
    if (times && step.kind == Step::Kind::kConvolution) times->back().macs = active_macs(step);
  }
  std::vector<Result> results;
  results.reserve(plan_.outputs.size());
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    const PlanOutput& output = plan_.outputs[i];
    results.push_back(output.dense >= 0 ? dense_result(output) : result(output));
  }
  watch.stop("results", "output");
  return results;
}

int64_t CpuExecutor::active_macs(const Step& step) const {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  return held_->maps[size_t(n.map)].pairs() * n.in_channels * n.out_channels;
}

void CpuExecutor::check_frame(const FrameView& frame) const {
  const ValueSpec& features = plan_.network.values[size_t(plan_.network.features)];
  if (frame.channels != features.channels) {
    fail(ErrorKind::kSite, "The network reads ", features.channels, " features per site, the frame has ",
         frame.channels, ". Check which columns the model was trained on.");
  }
  if (frame.batch < 0)
    fail(ErrorKind::kArgument, "The batch size must be at least 1, got ", frame.batch, ".");
}

void CpuExecutor::fail_non_finite(const FrameView& frame, int64_t count) const {
  int64_t first = 0;
  const int64_t all = frame.sites * frame.channels;
  const auto bad = [&](int64_t i) {
    return frame.half ? (static_cast<const uint16_t*>(frame.features)[i] & 0x7c00u) == 0x7c00u
                      : !(std::fabs(static_cast<const float*>(frame.features)[i]) < kHalfOverflow);
  };
  while (first < all && !bad(first)) ++first;
  if (first == all) {
    fail(ErrorKind::kNonFinite, "The features held ", count,
         " values that are NaN, infinite or beyond float16 (65504), and were overwritten during the call. Do "
         "not write to a frame before the call with it has returned.");
  }
  fail(ErrorKind::kNonFinite, "The features hold ", count,
       " values that are NaN, infinite or beyond float16 (65504); the first in row ", first / frame.channels,
       ", column ", first % frame.channels, ". Clean the points before voxelising them.");
}

void CpuExecutor::build_maps(const FrameView& frame, StageTimer& watch) {
  const Network& net = plan_.network;
  std::vector<SiteSet>& sets = held_->sets;
  int32_t batch = frame.batch ? frame.batch : net.batch;
  if (batch == 0) {
    int32_t last = 0;
    for (int64_t i = 0; i < frame.sites; ++i) last = std::max(last, frame.indices[i].batch);
    // INT32_MAX is no batch index: it is refused as one
    batch = last == std::numeric_limits<int32_t>::max() ? last : last + 1;
  }
  held_->batch = batch;
  // Every map depends on the indices alone; maps are numbered in an order in which each finds its input
  // sites.
  budget_.take(SiteIndex::bitmap_bytes(net.sets[0].shape, batch), kInput, "the index of its grid");
  budget_.take(Size(frame.sites) * (3 * sizeof(Site)), kInput, "its sites");
  index_sites(frame.indices, frame.sites, net.sets[0].shape, batch, kInput, pool_, &sets[0], &held_->order);
  watch.stop("sites", "input");
  for (size_t i = 0; i < net.maps.size(); ++i) {
    const MapSpec& spec = net.maps[i];
    KernelMap& map = held_->maps[i];
    const SiteSet& input = sets[size_t(spec.input_set)];
    SiteSet& output = sets[size_t(spec.output_set)];
    const char* kind = spec.partner >= 0 ? "inverse_map" : spec.geometry.subm ? "subm_map" : "conv_map";
    if (spec.partner < 0 && !spec.geometry.subm) {
      budget_.take(SiteIndex::bitmap_bytes(spec.geometry.output_shape, batch), spec.layer,
                   "the index of its grid");
      const Size sorted = cells_to_sort(input, spec.geometry, reach_[i]) * sizeof(int64_t);
      budget_.take(sorted, spec.layer, "the cells that it reaches");
      output_sites(input, spec.geometry, reach_[i], spec.bound, spec.layer, pool_, &output);
      budget_.take(Size(output.size()) * sizeof(Site), spec.layer, "its sites");
      watch.stop("output_sites", spec.layer.c_str());
    } else if (spec.geometry.subm && input.size() > spec.bound) {
      fail(ErrorKind::kBound, spec.layer, ": ", input.size(), " sites, but output_bound is ", spec.bound,
           ". Capture the model again with output_bound=", input.size() + input.size() / 4, " or more.");
    }
    budget_.take(KernelMap::bytes_for(output.size(), spec.geometry.volume()), spec.layer, "its kernel map");
    if (spec.partner >= 0) {
      inverse_map(held_->maps[size_t(spec.partner)], output.size(), &map);
    } else if (spec.geometry.subm) {
      subm_map(input, spec.geometry, reach_[i], pool_, &map);
    } else {
      conv_map(input, output, spec.geometry, reach_[i], pool_, &map);
    }
    watch.stop(kind, spec.layer.c_str());
  }
}

BufferBytes CpuExecutor::buffer_bytes() const {
  BufferBytes b;
  for (const PreparedWeights& w : weights_) {
    b.weights += int64_t(
        w.int8.capacity() + w.groups.capacity() + 2 * w.shifts.capacity() +
        4 * (w.floats.capacity() + w.offset_sums.capacity() + w.scale.capacity() + w.bias.capacity()));
  }
  b.activations = pool_.scratch_bytes();
  if (!held_) return b;
  for (const std::vector<char>& slot : held_->slots) b.activations += int64_t(slot.capacity());
  b.activations += held_->half.bytes() + held_->floats.bytes();
  for (const KernelMap& map : held_->maps) b.kernel_maps += map.bytes();
  for (const SiteSet& set : held_->sets)
    b.sites += set.index.bytes() + set.given.bytes() + int64_t(set.sites.capacity() * sizeof(Site));
  b.sites += int64_t(held_->order.capacity() * sizeof(int32_t));
  return b;
}

StoredRows CpuExecutor::rows(int storage) const {
  const Storage& s = plan_.storages[size_t(storage)];
  char* const data = held_->slots[size_t(s.slot)].data();
  if (s.format == Format::kInt8) return {StoredRows::Type::kInt8, data, int8_row(s.channels)};
  if (stored_as_half(s)) return {StoredRows::Type::kHalf, data, half_row(s.channels)};
  return {StoredRows::Type::kFloat, data, s.channels};
}

void CpuExecutor::reserve_slots() {
  std::vector<Size>& needed = held_->slot_bytes;
  needed.assign(held_->slots.size(), Size(0));
  for (size_t i = 0; i < plan_.storages.size(); ++i) {
    const Storage& s = plan_.storages[i];
    const StoredRows form = rows(int(i));
    const Size padding = form.is_half() ? kHalfPadding : 0;
    const Size bytes = (Size(held_->sets[size_t(s.set)].size()) * form.stride() + padding) * form.element();
    Size& slot = needed[size_t(s.slot)];
    if (bytes > slot) slot = bytes;
  }
  for (size_t i = 0; i < needed.size(); ++i) {
    std::vector<char>& slot = held_->slots[i];
    budget_.take(needed[i], kInput, "the values of its layers");
    if (slot.size() < needed[i].count()) slot.resize(needed[i].count());
  }
}

const std::vector<Emission>& CpuExecutor::emissions(const Step& step) {
  std::vector<Emission>& emissions = held_->emissions;
  emissions.clear();
  for (int id : step.stores) {
    const Storage& s = plan_.storages[size_t(id)];
    const StoredRows to = rows(id);
    Emission e{};
    e.kind = to.type() == StoredRows::Type::kInt8 ? Emission::kInt8
             : to.is_half()                       ? Emission::kFloat16
                                                  : Emission::kFloat32;
    e.relu = s.relu;
    e.through_half = s.half;
    e.factor = s.format == Format::kInt8 ? 127.0f / s.amax : 0.0f;
    e.out = to.data();
    e.stride = to.stride();
    e.columns = int32_t(e.stride);
    emissions.push_back(e);
  }
  return emissions;
}

Residual CpuExecutor::residual(const Step& step, const NodeSpec& add) {
  const StoredRows other = rows(step.other);
  Residual r{};
  r.stride = other.stride();
  r.self_is_second = step.self_is_second;
  if (add.precision == Precision::kInt8) {
    const AddScales scales = add_scales(add, step.self_is_second);
    r.kind = Residual::kInt8;
    r.other = other.int8();
    r.self_factor = scales.self_factor;
    r.self_scale = scales.self_scale;
    r.other_scale = scales.other_scale;
    return r;
  }
  r.kind = other.is_half() ? Residual::kFloat16 : Residual::kFloat32;
  r.other = other.is_half() ? static_cast<const void*>(other.half()) : other.floats();
  r.through_half = add.precision == Precision::kFloat16;
  return r;
}

void CpuExecutor::check_overflow(const Step& step, const Overflow& lost) const {
  const auto name = [&](int node) { return plan_.network.nodes[size_t(node)].name; };
  if (lost.before_add) fail_overflow(name(step.node), lost.before_add);
  if (lost.stored) fail_overflow(name(step.add >= 0 ? step.add : step.node), lost.stored);
}

void CpuExecutor::run_step(const Step& step, const FrameView& frame) {
  switch (step.kind) {
    case Step::Kind::kLoad:
      return load(step, frame);
    case Step::Kind::kConvolution:
      return convolution(step);
    case Step::Kind::kAdd:
      return add(step);
    case Step::Kind::kScatterDense:
      return scatter(step);
    case Step::Kind::kTranspose:
      return transpose(step);
  }
}

void CpuExecutor::load(const Step& step, const FrameView& frame) {
  const std::vector<Emission>& stores = emissions(step);
  const int32_t channels = frame.channels;
  const int32_t* const order = held_->order.data();
  std::atomic<int64_t> wrong{0};
  pool_.reserve_scratch((Size(kRowsPerChunk) * channels * sizeof(float)).value());
  pool_.for_each(frame.sites, kRowsPerChunk, [&](int64_t begin, int64_t end, int thread) {
    float* const buffer = static_cast<float*>(pool_.scratch(thread));
    for (int64_t row = begin; row < end; ++row) {
      const int64_t source = order[row];
      float* out = buffer + (row - begin) * channels;
      if (frame.half) {
        kernels_.half_to_float(static_cast<const uint16_t*>(frame.features) + source * channels, out,
                               channels);
      } else {
        std::memcpy(out, static_cast<const float*>(frame.features) + source * channels, size_t(channels) * 4);
      }
    }
    Finish f{};
    f.float_sums = buffer;
    f.stride = channels;
    f.channels = channels;
    f.through_half = true;  // features are float16 values in every precision
    f.emissions = stores.data();
    f.emission_count = int32_t(stores.size());
    // The values are checked as they are used: rows of the caller are read once.
    const Overflow lost = kernels_.finish(f, begin, end);
    if (lost.before_add) wrong += lost.before_add;
  });
  if (wrong) fail_non_finite(frame, wrong);
}

void CpuExecutor::convolution(const Step& step) {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  const StoredRows x = rows(step.input);
  const std::vector<Emission>& stores = emissions(step);
  Finish f{};
  f.relu = n.relu;
  f.emissions = stores.data();
  f.emission_count = int32_t(stores.size());
  if (step.add >= 0) {
    f.through_half = n.output_precision == Precision::kFloat16;
    f.residual = residual(step, plan_.network.nodes[size_t(step.add)]);
  }
  const int set = plan_.network.maps[size_t(n.map)].output_set;
  const bool int8 = n.precision == Precision::kInt8;
  const void* const data = int8 ? x.int8() : x.is_half() ? static_cast<const void*>(x.half()) : x.floats();
  const Overflow lost =
      run_convolution(kernels_, weights_[size_t(step.node)],
                      {data, x.stride(), plan_.storages[size_t(step.input)].nonnegative, x.is_half()},
                      held_->maps[size_t(n.map)].view(), held_->sets[size_t(set)].size(), f, pool_);
  check_overflow(step, lost);
}

void CpuExecutor::add(const Step& step) {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  const Storage& storage = plan_.storages[size_t(step.input)];
  const StoredRows self = rows(step.input);
  const std::vector<Emission>& stores = emissions(step);
  Finish f{};
  f.channels = storage.channels;
  f.stride = self.stride();
  f.emissions = stores.data();
  f.emission_count = int32_t(stores.size());
  f.residual = residual(step, n);
  if (n.precision == Precision::kInt8) {
    f.self_int8 = self.int8();
  } else if (self.is_half()) {
    f.self_half = self.half();
  } else {
    f.float_sums = self.floats();
  }
  const Overflow lost = run_finish(kernels_, f, held_->sets[size_t(storage.set)].size(), pool_);
  check_overflow(step, lost);
}

void CpuExecutor::scatter(const Step& step) {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  const ValueSpec& out = plan_.network.values[size_t(n.output)];
  const Storage& storage = plan_.storages[size_t(step.input)];
  const StoredRows x = rows(step.input);
  const SiteSet& set = held_->sets[size_t(storage.set)];
  const int32_t batch = held_->batch;
  const std::vector<int64_t>& dims = with_batch(out, plan_.network.batch, batch, n.name, &held_->dims);
  const int64_t element = out.half ? 2 : 4;
  auto& dense = held_->dense[size_t(step.dense_out)];
  dense = dense_memory(Size::of(dims) * element, n.name);
  const void* source = x.data();
  if (out.half && !x.is_half()) {  // rows of floats lie without gaps
    held_->half.resize((Size(set.size()) * storage.channels).value());
    uint16_t* const half = held_->half.data();
    std::atomic<int64_t> lost{0};
    pool_.for_each(held_->half.size(), int64_t(1) << 15, [&](int64_t begin, int64_t end, int) {
      lost += kernels_.float_to_half(x.floats() + begin, half + begin, end - begin);
    });
    if (lost) fail_overflow(n.name, lost);
    source = half;
  } else if (!out.half && x.is_half()) {
    held_->floats.resize((Size(set.size()) * x.stride()).value());
    float* const floats = held_->floats.data();
    pool_.for_each(held_->floats.size(), int64_t(1) << 15, [&](int64_t begin, int64_t end, int) {
      kernels_.half_to_float(x.half() + begin, floats + begin, end - begin);
    });
    source = floats;
  }
  // may be larger than the sites' grid; they keep their places
  const Triple shape{narrow(dims[2], "z"), narrow(dims[3], "y"), narrow(dims[4], "x")};
  scatter_dense(source, element, x.stride(), set.sites.data(), set.size(), storage.channels, batch, shape,
                pool_, dense.get());
}

namespace {

template <typename T>
void permute(const T* in, T* out, const std::vector<int64_t>& out_dims,
             const std::vector<int64_t>& in_strides, ThreadPool& pool) {
  const int64_t inner = out_dims.back(), outer = Size::of(out_dims).value() / std::max<int64_t>(1, inner);
  pool.for_each(outer, 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t rest = i, offset = 0;
      for (size_t axis = out_dims.size() - 1; axis-- > 0;) {
        offset += rest % out_dims[axis] * in_strides[axis];
        rest /= out_dims[axis];
      }
      for (int64_t j = 0; j < inner; ++j) out[i * inner + j] = in[offset + j * in_strides.back()];
    }
  });
}

}  // namespace

void CpuExecutor::transpose(const Step& step) {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  const ValueSpec& in = plan_.network.values[size_t(n.inputs[0])];
  const std::vector<int64_t>& dims = with_batch(in, plan_.network.batch, held_->batch, n.name, &held_->dims);
  std::vector<int64_t>&strides = held_->strides, &out_dims = held_->out_dims,
  &out_strides = held_->out_strides;
  strides.assign(dims.size(), 1);
  for (size_t axis = dims.size() - 1; axis-- > 0;) strides[axis] = strides[axis + 1] * dims[axis + 1];
  out_dims.clear();
  out_strides.clear();
  for (int64_t axis : n.dims) {
    out_dims.push_back(dims[size_t(axis)]);
    out_strides.push_back(strides[size_t(axis)]);
  }
  const Size bytes = Size::of(dims) * (in.half ? 2 : 4);
  auto& source = held_->dense[size_t(step.dense_in)];
  auto& target = held_->dense[size_t(step.dense_out)];
  target = dense_memory(bytes, n.name);
  if (in.half) {
    permute(reinterpret_cast<const uint16_t*>(source.get()), reinterpret_cast<uint16_t*>(target.get()),
            out_dims, out_strides, pool_);
  } else {
    permute(reinterpret_cast<const float*>(source.get()), reinterpret_cast<float*>(target.get()), out_dims,
            out_strides, pool_);
  }
  if (step.last_use) {
    source.reset();
    budget_.release(bytes);
  }
}

Result CpuExecutor::result(const PlanOutput& output) {
  const ValueSpec& value = plan_.network.values[size_t(output.value)];
  const Storage& s = plan_.storages[size_t(output.storage)];
  const SiteSet& set = held_->sets[size_t(s.set)];
  const StoredRows from = rows(output.storage);
  Result r;
  r.sparse = true;
  r.half = value.half;
  r.dims = {set.size(), s.channels};
  const int64_t element = r.half ? 2 : 4;
  const Size bytes = Size::of(r.dims) * element;
  budget_.take(bytes + Size(set.size()) * sizeof(Site), value.name, "its result");
  r.data.reset(new char[bytes.count()]);
  r.sites.resize(size_t(set.size()));
  for (int64_t row = 0; row < set.size(); ++row) {
    // Sites that the caller gave come back in the caller's order.
    const int64_t target = s.set == 0 ? held_->order[size_t(row)] : row;
    char* out = r.data.get() + target * s.channels * element;
    r.sites[size_t(target)] = set.sites[size_t(row)];
    if (r.half == from.is_half()) {
      const void* in = r.half ? static_cast<const void*>(from.half() + row * from.stride())
                              : from.floats() + row * from.stride();
      std::memcpy(out, in, size_t(s.channels * element));
    } else if (r.half) {
      kernels_.float_to_half(from.floats() + row * from.stride(), reinterpret_cast<uint16_t*>(out),
                             s.channels);
    } else {
      kernels_.half_to_float(from.half() + row * from.stride(), reinterpret_cast<float*>(out), s.channels);
    }
  }
  return r;
}

Result CpuExecutor::dense_result(const PlanOutput& output) {
  const ValueSpec& value = plan_.network.values[size_t(output.value)];
  Result r;
  r.half = value.half;
  with_batch(value, plan_.network.batch, held_->batch, value.name, &r.dims);
  auto& dense = held_->dense[size_t(output.dense)];
  if (output.last) {
    r.data = std::move(dense);
  } else {
    const Size bytes = Size::of(r.dims) * (r.half ? 2 : 4);
    r.data = dense_memory(bytes, value.name);
    std::memcpy(r.data.get(), dense.get(), bytes.count());
  }
  return r;
}

}  // namespace scn
