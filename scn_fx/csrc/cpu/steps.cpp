// SPDX-License-Identifier: Apache-2.0
// The launch of each kind of step; those of dense maps are in dense.cpp.
#include <atomic>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/failures.h"
#include "cpu/executor.h"
#include "cpu/group_norm.h"

namespace scn {
namespace {

constexpr int64_t kRowsPerChunk = 1024;
constexpr int64_t kRowsAhead = 16;

}  // namespace

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

StoredRows CpuExecutor::rows(const View& view) const {
  const Storage& s = plan_.storage_of(view);
  const int32_t element = element_bytes(s.type);
  return {s.type, held_->slots[size_t(s.slot)].data() + int64_t(view.column) * element,
          s.row_bytes / element};
}

Finish CpuExecutor::finish_of(const Epilogue& epilogue) {
  std::vector<StoreView>& stores = held_->stores;
  stores.clear();
  for (const Emission& e : epilogue.emissions) {
    const StoredRows to = rows(e.rows);
    const NodeSpec* const affine = e.affine < 0 ? nullptr : &plan_.network.nodes[size_t(e.affine)];
    stores.push_back({e.type, e.rounds_first, affine ? affine->scale.data() + e.affine_column : nullptr,
                      affine ? affine->shift.data() + e.affine_column : nullptr, e.activation, e.rounds,
                      e.factor, to.data(), to.stride(), e.columns});
  }
  Finish f{};
  if (epilogue.affine >= 0) {
    const NodeSpec& affine = plan_.network.nodes[size_t(epilogue.affine)];
    f.scale = affine.scale.data();
    f.bias = affine.shift.data();
  }
  f.activation = epilogue.activation;
  f.rounds = epilogue.rounds;
  f.stores = stores.data();
  f.store_count = int32_t(stores.size());
  if (epilogue.residual) {
    const Residual& r = epilogue.residual;
    const StoredRows other = rows(r.other);
    f.residual = {other.data(),     r.type,   other.stride(), r.rounds,
                  r.self_is_second, r.scales, r.product,      r.scale};
  }
  return f;
}

void CpuExecutor::load(const Step& step, const FrameView& frame) {
  const Finish stores = finish_of(step.epilogue);
  const int32_t channels = frame.channels;
  const int32_t* const order = held_->order.data();
  std::atomic<int64_t> wrong{0};
  pool_.reserve_scratch((Size(kRowsPerChunk) * channels * sizeof(float)).value());
  pool_.for_each(frame.sites, kRowsPerChunk, [&](int64_t begin, int64_t end, int thread) {
    float* const buffer = static_cast<float*>(pool_.scratch(thread));
    const int64_t row_bytes = int64_t(channels) * (frame.half ? 2 : 4);
    const char* const features = static_cast<const char*>(frame.features);
    for (int64_t row = begin; row < end; ++row) {
      // the order is the caller's, which no hardware can guess
      if (row + kRowsAhead < frame.sites) __builtin_prefetch(features + order[row + kRowsAhead] * row_bytes);
      const char* const source = features + order[row] * row_bytes;
      float* out = buffer + (row - begin) * channels;
      if (frame.half) {
        kernels_.half_to_float(reinterpret_cast<const uint16_t*>(source), out, channels);
      } else {
        for (int32_t c = 0; c < channels; ++c)
          std::memcpy(out + c, source + c * sizeof(float), sizeof(float));
      }
    }
    Finish f = stores;
    f.float_sums = buffer;
    f.stride = channels;
    f.channels = channels;
    f.rounds = true;  // features are float16 values in every precision
    // The values are checked as they are used: rows of the caller are read once.
    const Overflow lost = kernels_.finish(f, begin, end);
    if (lost.before_add) wrong += lost.before_add;
  });
  if (wrong) fail_non_finite(frame, wrong);
}

void CpuExecutor::convolution(const Step& step) {
  const NodeSpec& n = plan_.node_of(step);
  const StoredRows x = rows(step.input);
  const int set = plan_.network.maps[size_t(n.map)].output_set;
  const bool int8 = n.precision == ElementType::kInt8;
  const void* const data = int8 ? x.int8() : x.is_half() ? static_cast<const void*>(x.half()) : x.floats();
  const Overflow lost = run_convolution(
      kernels_, configs_[size_t(&step - plan_.steps.data())], weights_[size_t(step.node)],
      {data, x.stride(), plan_.storage_of(step.input).nonnegative, x.is_half()},
      held_->maps[size_t(n.map)].view(), held_->sets[size_t(set)].size(), finish_of(step.epilogue), pool_);
  check_overflow(step, lost);
}

void CpuExecutor::finish_rows(const Step& step) {
  const StoredRows self = rows(step.input);
  Finish f = finish_of(step.epilogue);
  f.channels = step.input.channels;
  f.stride = self.stride();
  if (self.type() == ElementType::kInt8) {
    f.self_int8 = self.int8();
  } else if (self.is_half()) {
    f.self_half = self.half();
  } else {
    f.float_sums = self.floats();
  }
  const int set = plan_.storage_of(step.input).set;
  check_overflow(step, run_finish(kernels_, f, held_->sets[size_t(set)].size(), pool_));
}

void CpuExecutor::concat(const Step& step) {
  for (const Copy& copy : step.copies) {
    const Storage& storage = plan_.storage_of(copy.to);
    const StoredRows from = rows(copy.from), to = rows(copy.to);
    const int64_t element = element_bytes(storage.type);
    pool_.for_each(held_->sets[size_t(storage.set)].size(), kRowsPerChunk,
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t row = begin; row < end; ++row) {
                       std::memcpy(static_cast<char*>(to.data()) + row * to.stride() * element,
                                   static_cast<const char*>(from.data()) + row * from.stride() * element,
                                   size_t(copy.to.channels * element));
                     }
                   });
  }
  for (const View& blank : step.blanks) {
    const Storage& storage = plan_.storage_of(blank);
    const StoredRows to = rows(blank);
    const int64_t element = element_bytes(storage.type), count = held_->sets[size_t(storage.set)].size();
    for (int64_t row = 0; row < count; ++row)
      std::memset(static_cast<char*>(to.data()) + row * to.stride() * element, 0,
                  size_t(blank.channels * element));
  }
}

FeatureRows CpuExecutor::float_rows(const View& view) const {
  const StoredRows x = rows(view);
  const void* const data = x.is_half() ? static_cast<const void*>(x.half()) : x.floats();
  return {data, x.stride(), false, x.is_half()};
}

void CpuExecutor::pool(const Step& step) {
  const NodeSpec& n = plan_.node_of(step);
  held_->pooled.assign(1, {float_rows(step.input), held_->maps[size_t(n.map)].view()});
  pool_rows(step, n.pooling);
}

void CpuExecutor::unite(const Step& step) {
  const NodeSpec& n = plan_.node_of(step);
  held_->pooled.clear();
  for (size_t i = 0; i < step.parts.size(); ++i)
    held_->pooled.push_back({float_rows(step.parts[i]), held_->maps[size_t(n.maps[i])].view()});
  pool_rows(step, Pooling::kSum);
}

/// The result of a step that pools FrameMemory::pooled.
void CpuExecutor::pool_rows(const Step& step, Pooling kind) {
  const ValueSpec& result = plan_.network.values[size_t(plan_.node_of(step).output)];
  check_overflow(step, run_pool(kernels_, kind, held_->pooled, result.channels,
                                held_->sets[size_t(result.set)].size(), finish_of(step.epilogue), pool_));
}

void CpuExecutor::group_norm(const Step& step) {
  const NodeSpec& n = plan_.node_of(step);
  const GroupNorm norm{step.input.channels, n.groups, n.epsilon, n.scale.data(), n.shift.data()};
  const int set = plan_.storage_of(step.input).set;
  check_overflow(step, run_group_norm(kernels_, norm, float_rows(step.input), held_->sets[size_t(set)].size(),
                                      finish_of(step.epilogue), pool_));
}

void CpuExecutor::check_overflow(const Step& step, const Overflow& lost) const {
  if (lost.before_add) fail_overflow(plan_.name_of(step), lost.before_add);
  if (lost.stored) fail_overflow(plan_.result_name_of(step), lost.stored);
}

void CpuExecutor::run_step(const Step& step, const FrameView& frame) {
  switch (step.kind) {
    case Step::Kind::kLoad:
      return load(step, frame);
    case Step::Kind::kConvolution:
      return convolution(step);
    case Step::Kind::kRows:
      return finish_rows(step);
    case Step::Kind::kConcat:
      return concat(step);
    case Step::Kind::kPool:
      return pool(step);
    case Step::Kind::kUnion:
      return unite(step);
    case Step::Kind::kGroupNorm:
      return group_norm(step);
    case Step::Kind::kGlobalPool:
      return global_pool(step);
    case Step::Kind::kScatterDense:
      return scatter(step);
    case Step::Kind::kTranspose:
      return transpose(step);
  }
}

}  // namespace scn
