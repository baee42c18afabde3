// SPDX-License-Identifier: Apache-2.0
#include "cpu/executor.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>

#include "error.h"
#include "half.h"

namespace scn {
namespace {

constexpr int64_t kRowsPerChunk = 1024;

/// Whether rows are stored as float16. Those of few channels, which input layers read, are not: they would
/// gain little memory, and those layers do too little with a value to convert it first.
bool is_half(const Storage& s) { return s.format == Format::kFloat32 && s.half && s.channels > 8; }

/// dims with the exported batch, its first entry, replaced by the frame's; into `out`, which is returned.
const std::vector<int64_t>& with_batch(const std::vector<int64_t>& dims, int32_t exported, int32_t batch,
                                       const std::string& layer, std::vector<int64_t>* out) {
  out->assign(dims.begin(), dims.end());
  if (batch == exported) return *out;
  if (dims.empty() || dims[0] != exported) {
    fail(ErrorKind::kArgument, layer,
         ": its shape does not start with the batch, so it only runs with the exported batch of ", exported,
         ", not ", batch, ".");
  }
  (*out)[0] = batch;
  return *out;
}

std::unique_ptr<char[]> dense_memory(int64_t bytes, const std::string& layer) {
  try {
    return std::unique_ptr<char[]>(new char[size_t(bytes)]);
  } catch (const std::bad_alloc&) {
    fail(ErrorKind::kArgument, layer, ": there is no memory for a dense map of ", bytes,
         " bytes. Use a smaller batch size, larger voxels or a smaller range.");
  }
}

}  // namespace

CpuExecutor::CpuExecutor(const Plan& plan, int threads)
    : plan_(plan), kernels_(select_kernels()), pool_(threads) {
  weights_.resize(plan.network.nodes.size());
  for (size_t i = 0; i < weights_.size(); ++i) {
    const NodeSpec& n = plan.network.nodes[i];
    if (n.kind != NodeSpec::Kind::kConvolution) continue;
    const int32_t offsets = plan.network.maps[size_t(n.map)].geometry.volume();
    weights_[i] = prepare_weights({n.weight.data(), n.bias.data(), n.out_channels, offsets, n.in_channels,
                                   n.precision, n.amax[0], n.weight_amax.data(), n.name});
  }
  slots_.resize(size_t(plan.slots));
  dense_.resize(plan.dense.size());
  sets_.resize(plan.network.sets.size());
  maps_.resize(plan.network.maps.size());
  for (const MapSpec& map : plan.network.maps) {
    reach_.push_back(map.partner >= 0 ? Reach{} : make_reach(map.geometry));
  }
}

std::vector<Result> CpuExecutor::run(const FrameView& frame, std::vector<StageTime>* times) {
  static const char* const kinds[] = {"load", "convolution", "add", "scatter_dense", "transpose"};
  StageTimer watch(times);
  check_frame(frame);
  watch.stop("check", "input");
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
    bool last = true;
    for (size_t j = i + 1; j < plan_.outputs.size(); ++j)
      last = last && plan_.outputs[j].dense != output.dense;
    results.push_back(output.dense >= 0 ? dense_result(output, last) : result(output));
  }
  watch.stop("results", "output");
  return results;
}

int64_t CpuExecutor::active_macs(const Step& step) const {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  return maps_[size_t(n.map)].pairs() * n.in_channels * n.out_channels;
}

void CpuExecutor::check_frame(const FrameView& frame) {
  const ValueSpec& features = plan_.network.values[size_t(plan_.network.features)];
  if (frame.channels != features.channels) {
    fail(ErrorKind::kSite, "The network reads ", features.channels, " features per site, the frame has ",
         frame.channels, ". Check which columns the model was trained on.");
  }
  std::atomic<int64_t> wrong{0};
  std::atomic<int64_t> first{-1};
  pool_.for_each(frame.sites * frame.channels, 1 << 16, [&](int64_t begin, int64_t end, int) {
    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) {
      const bool bad = frame.half
                           ? (static_cast<const uint16_t*>(frame.features)[i] & 0x7c00u) == 0x7c00u
                           : !(std::fabs(static_cast<const float*>(frame.features)[i]) < kHalfOverflow);
      if (bad && count++ == 0) {
        int64_t none = -1;
        first.compare_exchange_strong(none, i);
      }
    }
    wrong += count;
  });
  if (wrong) {
    fail(ErrorKind::kNonFinite, "The features hold ", wrong.load(),
         " values that are NaN, infinite or beyond float16 (65504); one of them in row ",
         first.load() / frame.channels, ", column ", first.load() % frame.channels,
         ". Clean the points before voxelising them.");
  }
}

void CpuExecutor::build_maps(const FrameView& frame, StageTimer& watch) {
  const Network& net = plan_.network;
  batch_ = frame.batch ? frame.batch : net.batch;
  if (batch_ == 0) {
    batch_ = 1;
    for (int64_t i = 0; i < frame.sites; ++i) batch_ = std::max(batch_, frame.indices[i].batch + 1);
  }
  // Every map depends on the indices alone; maps are numbered in an order in which each finds its input
  // sites.
  index_sites(frame.indices, frame.sites, net.sets[0].shape, batch_, "The input", pool_, &sets_[0], &order_);
  watch.stop("sites", "input");
  for (size_t i = 0; i < net.maps.size(); ++i) {
    const MapSpec& spec = net.maps[i];
    KernelMap& map = maps_[i];
    const SiteSet& input = sets_[size_t(spec.input_set)];
    SiteSet& output = sets_[size_t(spec.output_set)];
    const char* kind = spec.partner >= 0 ? "inverse_map" : spec.geometry.subm ? "subm_map" : "conv_map";
    if (spec.partner >= 0) {
      inverse_map(maps_[size_t(spec.partner)], output.size(), &map);
    } else if (spec.geometry.subm) {
      if (input.size() > spec.bound) {
        fail(ErrorKind::kBound, spec.layer, ": ", input.size(), " sites, but output_bound is ", spec.bound,
             ". Capture the model again with output_bound=", input.size() + input.size() / 4, " or more.");
      }
      subm_map(input, spec.geometry, reach_[i], pool_, &map);
    } else {
      output_sites(input, spec.geometry, reach_[i], spec.bound, spec.layer, pool_, &output);
      watch.stop("output_sites", spec.layer.c_str());
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
  for (const std::vector<char>& slot : slots_) b.activations += int64_t(slot.capacity());
  b.activations += half_.bytes() + pool_.scratch_bytes();
  for (const KernelMap& map : maps_) b.kernel_maps += map.bytes();
  for (const SiteSet& set : sets_)
    b.sites += set.index.bytes() + int64_t(set.sites.capacity() * sizeof(Site));
  b.sites += int64_t(order_.capacity() * sizeof(int32_t));
  return b;
}

int64_t CpuExecutor::row_elements(const Storage& s) const {
  return s.format == Format::kInt8 ? int8_row(s.channels) : is_half(s) ? half_row(s.channels) : s.channels;
}

void CpuExecutor::reserve_slots() {
  for (const Storage& s : plan_.storages) {
    const int64_t element = s.format == Format::kInt8 ? 1 : is_half(s) ? 2 : 4;
    const int64_t padding = is_half(s) ? kHalfPadding : 0;
    const size_t bytes = size_t((sets_[size_t(s.set)].size() * row_elements(s) + padding) * element);
    std::vector<char>& slot = slots_[size_t(s.slot)];
    if (slot.size() < bytes) slot.resize(bytes);
  }
}

char* CpuExecutor::rows(int storage) { return slots_[size_t(plan_.storages[size_t(storage)].slot)].data(); }

const std::vector<Emission>& CpuExecutor::emissions(const Step& step) {
  emissions_.clear();
  for (int id : step.stores) {
    const Storage& s = plan_.storages[size_t(id)];
    Emission e{};
    e.kind = s.format == Format::kInt8 ? Emission::kInt8
             : is_half(s)              ? Emission::kFloat16
                                       : Emission::kFloat32;
    e.relu = s.relu;
    e.through_half = s.half;
    e.factor = s.format == Format::kInt8 ? 127.0f / s.amax : 0.0f;
    e.out = rows(id);
    e.stride = row_elements(s);
    e.columns = int32_t(e.stride);
    emissions_.push_back(e);
  }
  return emissions_;
}

Residual CpuExecutor::residual(const Step& step, const NodeSpec& add) {
  const Storage& other = plan_.storages[size_t(step.other)];
  Residual r{};
  r.other = rows(step.other);
  r.stride = row_elements(other);
  r.self_is_second = step.self_is_second;
  if (add.precision == Precision::kInt8) {
    const AddScales scales = add_scales(add, step.self_is_second);
    r.kind = Residual::kInt8;
    r.self_factor = scales.self_factor;
    r.self_scale = scales.self_scale;
    r.other_scale = scales.other_scale;
  } else {
    r.kind = is_half(other) ? Residual::kFloat16 : Residual::kFloat32;
    r.through_half = add.precision == Precision::kFloat16;
  }
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
  pool_.reserve_scratch(kRowsPerChunk * channels * int64_t(sizeof(float)));
  pool_.for_each(frame.sites, kRowsPerChunk, [&](int64_t begin, int64_t end, int thread) {
    float* const buffer = static_cast<float*>(pool_.scratch(thread));
    for (int64_t row = begin; row < end; ++row) {
      const int64_t source = order_[size_t(row)];
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
    kernels_.finish(f, begin, end);
  });
}

void CpuExecutor::convolution(const Step& step) {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  const Storage& x = plan_.storages[size_t(step.input)];
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
  const Overflow lost = run_convolution(kernels_, weights_[size_t(step.node)],
                                        {rows(step.input), row_elements(x), x.nonnegative, is_half(x)},
                                        maps_[size_t(n.map)].view(), sets_[size_t(set)].size(), f, pool_);
  check_overflow(step, lost);
}

void CpuExecutor::add(const Step& step) {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  const Storage& self = plan_.storages[size_t(step.input)];
  const std::vector<Emission>& stores = emissions(step);
  Finish f{};
  f.channels = self.channels;
  f.stride = row_elements(self);
  f.emissions = stores.data();
  f.emission_count = int32_t(stores.size());
  f.residual = residual(step, n);
  if (n.precision == Precision::kInt8) {
    f.self_int8 = reinterpret_cast<const int8_t*>(rows(step.input));
  } else if (is_half(self)) {
    f.self_half = reinterpret_cast<const uint16_t*>(rows(step.input));
  } else {
    f.float_sums = reinterpret_cast<const float*>(rows(step.input));
  }
  const Overflow lost = run_finish(kernels_, f, sets_[size_t(self.set)].size(), pool_);
  check_overflow(step, lost);
}

void CpuExecutor::scatter(const Step& step) {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  const ValueSpec& out = plan_.network.values[size_t(n.output)];
  const Storage& x = plan_.storages[size_t(step.input)];
  const SiteSet& set = sets_[size_t(x.set)];
  const int64_t element = out.half ? 2 : 4;
  const int64_t cells = element_count(with_batch(out.dims, plan_.network.batch, batch_, n.name, &dims_));
  auto& dense = dense_[size_t(step.dense_out)];
  dense = dense_memory(cells * element, n.name);
  const void* source = rows(step.input);
  if (out.half && !is_half(x)) {
    half_.resize(set.size() * x.channels);
    std::atomic<int64_t> lost{0};
    pool_.for_each(half_.size(), int64_t(1) << 15, [&](int64_t begin, int64_t end, int) {
      lost += kernels_.float_to_half(static_cast<const float*>(source) + begin, half_.data() + begin,
                                     end - begin);
    });
    if (lost) fail_overflow(n.name, lost);
    source = half_.data();
  }
  // may be larger than the sites' grid; they keep their places
  const Triple shape{int32_t(dims_[2]), int32_t(dims_[3]), int32_t(dims_[4])};
  scatter_dense(source, element, row_elements(x), set.sites.data(), set.size(), x.channels, batch_, shape,
                pool_, dense.get());
}

namespace {

template <typename T>
void permute(const T* in, T* out, const std::vector<int64_t>& out_dims,
             const std::vector<int64_t>& in_strides, ThreadPool& pool) {
  const int64_t inner = out_dims.back(), outer = element_count(out_dims) / std::max<int64_t>(1, inner);
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
  const std::vector<int64_t>& dims = with_batch(in.dims, plan_.network.batch, batch_, n.name, &dims_);
  strides_.assign(dims.size(), 1);
  for (size_t axis = dims.size() - 1; axis-- > 0;) strides_[axis] = strides_[axis + 1] * dims[axis + 1];
  out_dims_.clear();
  out_strides_.clear();
  for (int64_t axis : n.dims) {
    out_dims_.push_back(dims[size_t(axis)]);
    out_strides_.push_back(strides_[size_t(axis)]);
  }
  const int64_t element = in.half ? 2 : 4;
  auto& source = dense_[size_t(step.dense_in)];
  auto& target = dense_[size_t(step.dense_out)];
  target = dense_memory(element_count(dims) * element, n.name);
  if (in.half) {
    permute(reinterpret_cast<const uint16_t*>(source.get()), reinterpret_cast<uint16_t*>(target.get()),
            out_dims_, out_strides_, pool_);
  } else {
    permute(reinterpret_cast<const float*>(source.get()), reinterpret_cast<float*>(target.get()), out_dims_,
            out_strides_, pool_);
  }
  if (step.last_use) source.reset();
}

Result CpuExecutor::result(const PlanOutput& output) {
  const ValueSpec& value = plan_.network.values[size_t(output.value)];
  const Storage& s = plan_.storages[size_t(output.storage)];
  const SiteSet& set = sets_[size_t(s.set)];
  const char* source = rows(output.storage);
  const int64_t stride = row_elements(s);
  Result r;
  r.sparse = true;
  r.half = value.half;
  r.dims = {set.size(), s.channels};
  const int64_t element = r.half ? 2 : 4;
  r.data.reset(new char[size_t(set.size() * s.channels * element)]);
  r.sites.resize(size_t(set.size()));
  for (int64_t row = 0; row < set.size(); ++row) {
    // Sites that the caller gave come back in the caller's order.
    const int64_t target = s.set == 0 ? order_[size_t(row)] : row;
    char* out = r.data.get() + target * s.channels * element;
    r.sites[size_t(target)] = set.sites[size_t(row)];
    if (r.half && !is_half(s)) {
      kernels_.float_to_half(reinterpret_cast<const float*>(source) + row * stride,
                             reinterpret_cast<uint16_t*>(out), s.channels);
    } else {
      std::memcpy(out, source + row * stride * element, size_t(s.channels * element));
    }
  }
  return r;
}

Result CpuExecutor::dense_result(const PlanOutput& output, bool last) {
  const ValueSpec& value = plan_.network.values[size_t(output.value)];
  Result r;
  r.half = value.half;
  with_batch(value.dims, plan_.network.batch, batch_, value.name, &r.dims);
  auto& dense = dense_[size_t(output.dense)];
  if (last) {
    r.data = std::move(dense);
  } else {
    const int64_t bytes = element_count(r.dims) * (r.half ? 2 : 4);
    r.data = dense_memory(bytes, value.name);
    std::memcpy(r.data.get(), dense.get(), size_t(bytes));
  }
  return r;
}

}  // namespace scn
