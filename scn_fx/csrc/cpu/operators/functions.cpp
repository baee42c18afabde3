// SPDX-License-Identifier: Apache-2.0
#include "cpu/operators/functions.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/failures.h"
#include "core/geometry.h"
#include "core/numerics.h"
#include "core/sizes.h"
#include "cpu/maps/kernel_map.h"

namespace scn {
namespace {

StoreView store(ElementType type, void* out, int64_t stride, bool rounds, float factor = 0.0f) {
  return {type, false, {}, rounds, factor, out, stride, int32_t(stride)};
}

void fail_if_lost(const Overflow& lost, const std::string& layer) {
  if (lost.before_add || lost.stored) fail_overflow(layer, std::max(lost.before_add, lost.stored));
}

Finish float_rows(const float* rows, int32_t channels) {
  Finish f{};
  f.float_sums = rows;
  f.stride = channels;
  f.channels = channels;
  return f;
}

constexpr float kMostFloat = std::numeric_limits<float>::max();

/// The range as float32, in which kernels compute.
float checked_range(double amax, const char* what, const std::string& layer) {
  const float range =
      std::fabs(amax) <= double(kMostFloat) ? float(amax) : std::numeric_limits<float>::infinity();
  if (!usable_range(range))
    fail(ErrorKind::kArgument, layer, ": ", what, " must be ", kUsableRange, ", got ", amax, ".");
  return range;
}

struct Int8Rows {
  std::unique_ptr<int8_t[]> data;  // int8_row(channels) apart
  bool nonnegative;                // then the faster kernels for such features serve
};

Size int8_bytes(int64_t rows, int32_t channels) { return Size(rows) * int8_row(channels); }

/// Values of a few rows at a time, so that they stay in a nearby cache.
int64_t rows_at_hand(int32_t channels) { return std::max<int64_t>(1, (int64_t(1) << 13) / channels); }
Size bytes_at_hand(int32_t channels) { return Size(rows_at_hand(channels)) * channels * sizeof(float); }

/// q(x, amax) of float rows. int8 has neither NaN nor infinity: they are looked for in the copy of a few rows
/// that is quantised, not in the caller's memory.
Int8Rows quantise_rows(const Kernels& kernels, const float* x, int64_t rows, int32_t channels, float amax,
                       const std::string& what, ThreadPool& pool) {
  Int8Rows out{std::unique_ptr<int8_t[]>(new int8_t[int8_bytes(rows, channels).count()]), true};
  const StoreView e = store(ElementType::kInt8, out.data.get(), int8_row(channels), false, int8_factor(amax));
  std::atomic<int64_t> wrong{0};
  std::atomic<bool> negative{false};
  pool.reserve_scratch(bytes_at_hand(channels).value());
  pool.for_each(rows, rows_at_hand(channels), [&](int64_t begin, int64_t end, int thread) {
    float* const held = static_cast<float*>(pool.scratch(thread));
    const int64_t count = (end - begin) * channels;
    std::memcpy(held, x + begin * channels, size_t(count) * sizeof(float));
    int32_t found = 0;
    for (int64_t i = 0; i < count; ++i) found += !(std::fabs(held[i]) <= kMostFloat);
    if (found) {
      wrong += found;
      return;
    }
    Finish f = float_rows(held, channels);
    f.stores = &e;
    f.store_count = 1;
    kernels.finish(f, begin, end);
    int8_t signs = 0;
    for (int64_t i = begin * int8_row(channels); i < end * int8_row(channels); ++i)
      signs |= out.data[size_t(i)];
    if (signs < 0) negative = true;
  });
  if (wrong) fail_not_finite(what, wrong);
  out.nonnegative = !negative;
  return out;
}

std::unique_ptr<float[]> float_result(int64_t rows, int64_t channels, const std::string& layer,
                                      MemoryBudget& budget) {
  const Size count = Size(rows) * channels;
  budget.take(count * sizeof(float), layer, "its result");
  return std::unique_ptr<float[]>(new float[count.count()]);
}

}  // namespace

std::unique_ptr<float[]> convolve(const ConvCall& call, ThreadPool& pool, MemoryBudget& budget) {
  const std::string& layer = call.layer;
  check_rows(call.in_sites, call.in_channels, layer);
  check_rows(call.out_sites, call.out_channels, layer, "its result");
  check_depth({call.offsets, call.in_channels, call.precision, layer});
  const bool int8 = call.precision == ElementType::kInt8, half = call.precision == ElementType::kFloat16;
  const int32_t in = int32_t(call.in_channels), out = int32_t(call.out_channels),
                offsets = int32_t(call.offsets);
  if (int8 && !call.weight_amax)
    fail(ErrorKind::kArgument, layer, ": int8 needs the dynamic ranges of the weight.");
  const float amax = int8 ? checked_range(call.input_amax, "the dynamic range of its input", layer) : 0.0f;
  // as they are prepared: rounded, and once more as int8
  budget.take(
      Size(out) * offsets * in * (sizeof(float) + 1) + prepared_bytes(call.precision, out, offsets, in),
      layer, "its weight");
  budget.take(KernelMap::bytes_for(call.out_sites, offsets), layer, "its kernel map");
  budget.take(convolution_scratch(out, offsets, in) * pool.size(), layer, "the sums of its output channels");
  const Size half_count = Size(call.in_sites) * half_row(in) + kHalfPadding;
  if (int8) budget.take(int8_bytes(call.in_sites, in) + bytes_at_hand(in) * pool.size(), layer, "its input");
  if (half) budget.take(half_count * sizeof(uint16_t), layer, "its input");
  std::unique_ptr<float[]> y = float_result(call.out_sites, out, layer, budget);

  const Kernels& kernels = select_kernels();
  const PreparedWeights weights = prepare_weights(
      {call.weight, call.bias, out, offsets, in, call.precision, amax, call.weight_amax, layer});
  KernelMap map;
  map.assign(call.map, call.out_sites, offsets, call.in_sites, layer, pool);
  Int8Rows quantised;
  std::vector<uint16_t> rounded;
  FeatureRows x{call.features, in, false, false};
  if (int8) {
    quantised = quantise_rows(kernels, call.features, call.in_sites, in, amax, layer + ": its input", pool);
    x = {quantised.data.get(), int8_row(in), quantised.nonnegative, false};
  } else if (half) {
    rounded.resize(half_count.count());
    const StoreView e = store(ElementType::kFloat16, rounded.data(), half_row(in), true);
    Finish f = float_rows(call.features, in);
    f.stores = &e;
    f.store_count = 1;
    fail_if_lost(run_finish(kernels, f, call.in_sites, pool), layer + " (its input)");
    x = {rounded.data(), half_row(in), false, true};
  }
  const StoreView e = store(ElementType::kFloat32, y.get(), out, call.round_output);
  Finish f{};
  f.activation = call.activation;
  f.stores = &e;
  f.store_count = 1;
  fail_if_lost(
      run_convolution(kernels, choose({call.precision, in, out, offsets, x.nonnegative, x.half}, kernels),
                      weights, x, map.view(), call.out_sites, f, pool),
      layer);
  return y;
}

std::unique_ptr<float[]> add(const AddCall& call, ThreadPool& pool, MemoryBudget& budget) {
  const std::string& layer = call.layer;
  check_rows(call.rows, call.channels, layer);
  const int32_t channels = int32_t(call.channels);
  std::unique_ptr<float[]> y = float_result(call.rows, channels, layer, budget);
  const Kernels& kernels = select_kernels();
  StoreView e = store(ElementType::kFloat32, y.get(), channels, call.round_output);
  e.activation = call.activation;
  Finish f{};
  ResidualView r{};
  Int8Rows first, second;
  std::unique_ptr<float[]> rounded;
  if (call.precision == ElementType::kInt8) {
    const float amax0 = checked_range(call.amax0, "the dynamic range of its first input", layer);
    const float amax1 = checked_range(call.amax1, "the dynamic range of its second input", layer);
    budget.take(int8_bytes(call.rows, channels) * 2 + bytes_at_hand(channels) * pool.size(), layer,
                "its inputs");
    first = quantise_rows(kernels, call.a, call.rows, channels, amax0, layer + ": its first input", pool);
    second = quantise_rows(kernels, call.b, call.rows, channels, amax1, layer + ": its second input", pool);
    f.self_int8 = first.data.get();
    f.stride = int8_row(channels);
    f.channels = channels;
    r.type = ElementType::kInt8;
    r.other = second.data.get();
    r.stride = int8_row(channels);
    r.scales = add_scales(amax0, amax1);
  } else {
    f = float_rows(call.a, channels);
    r.type = ElementType::kFloat32;
    r.other = call.b;
    r.stride = channels;
    if (call.precision == ElementType::kFloat16) {
      rounded = float_result(call.rows, channels, layer, budget);
      const StoreView half = store(ElementType::kFloat32, rounded.get(), channels, true);
      Finish g = float_rows(call.b, channels);
      g.stores = &half;
      g.store_count = 1;
      fail_if_lost(run_finish(kernels, g, call.rows, pool), layer + " (its second input)");
      r.other = rounded.get();
      r.rounds = true;
    }
  }
  f.residual = r;
  f.stores = &e;
  f.store_count = 1;
  fail_if_lost(run_finish(kernels, f, call.rows, pool), layer);
  return y;
}

}  // namespace scn
