// SPDX-License-Identifier: Apache-2.0
#include "cpu/functions.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "error.h"
#include "maps/kernel_map.h"

namespace scn {
namespace {

Emission emission(Emission::Kind kind, void* out, int64_t stride, bool through_half, float factor = 0.0f) {
  return {kind, false, through_half, factor, out, stride, int32_t(stride)};
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

/// int8 has neither NaN nor infinity.
void check_finite(const float* x, int64_t count, const std::string& what, ThreadPool& pool) {
  std::atomic<int64_t> wrong{0};
  pool.for_each(count, int64_t(1) << 16, [&](int64_t begin, int64_t end, int) {
    int64_t found = 0;
    for (int64_t i = begin; i < end; ++i) found += !std::isfinite(x[i]);
    wrong += found;
  });
  if (wrong) {
    fail(
        ErrorKind::kNonFinite, what, " holds ", wrong.load(),
        " values that are NaN or infinite, which int8 cannot hold. Clean the features, or look for the layer "
        "that makes them.");
  }
}

/// q(x, amax) of float rows, padded to int8 rows.
std::vector<int8_t> quantise_rows(const Kernels& kernels, const float* x, int64_t rows, int32_t channels,
                                  float amax, ThreadPool& pool) {
  std::vector<int8_t> out(size_t(rows * int8_row(channels)));
  const Emission e = emission(Emission::kInt8, out.data(), int8_row(channels), false, 127.0f / amax);
  Finish f = float_rows(x, channels);
  f.emissions = &e;
  f.emission_count = 1;
  run_finish(kernels, f, rows, pool);
  return out;
}

/// Whether no entry is below zero: then the faster kernels for such features serve.
bool is_nonnegative(const std::vector<int8_t>& rows, ThreadPool& pool) {
  std::atomic<bool> negative{false};
  pool.for_each(int64_t(rows.size()), int64_t(1) << 16, [&](int64_t begin, int64_t end, int) {
    int8_t signs = 0;
    for (int64_t i = begin; i < end; ++i) signs |= rows[size_t(i)];
    if (signs < 0) negative = true;
  });
  return !negative;
}

}  // namespace

void convolve(const ConvCall& call, ThreadPool& pool, float* y) {
  const Kernels& kernels = select_kernels();
  const WeightSource& s = call.weights;
  const PreparedWeights weights = prepare_weights(s);
  KernelMap map;
  map.assign(call.map, call.out_sites, s.offsets, call.in_sites, s.layer, pool);
  std::vector<int8_t> int8;
  std::vector<uint16_t> half;
  FeatureRows x{call.features, s.in_channels, false, false};
  if (s.precision == Precision::kInt8) {
    check_finite(call.features, call.in_sites * s.in_channels, s.layer + ": its input", pool);
    int8 = quantise_rows(kernels, call.features, call.in_sites, s.in_channels, s.input_amax, pool);
    x = {int8.data(), int8_row(s.in_channels), is_nonnegative(int8, pool), false};
  } else if (s.precision == Precision::kFloat16) {
    half.resize(size_t(call.in_sites * half_row(s.in_channels) + kHalfPadding));
    const Emission e = emission(Emission::kFloat16, half.data(), half_row(s.in_channels), true);
    Finish f = float_rows(call.features, s.in_channels);
    f.emissions = &e;
    f.emission_count = 1;
    fail_if_lost(run_finish(kernels, f, call.in_sites, pool), s.layer + " (its input)");
    x = {half.data(), half_row(s.in_channels), false, true};
  }
  const Emission e = emission(Emission::kFloat32, y, s.out_channels, call.round_output);
  Finish f{};
  f.relu = call.relu;
  f.emissions = &e;
  f.emission_count = 1;
  fail_if_lost(run_convolution(kernels, weights, x, map.view(), call.out_sites, f, pool), s.layer);
}

void add(const AddCall& call, ThreadPool& pool, float* y) {
  const Kernels& kernels = select_kernels();
  Finish f = float_rows(call.a, call.channels);
  Emission e = emission(Emission::kFloat32, y, call.channels, call.round_output);
  e.relu = call.relu;
  f.emissions = &e;
  f.emission_count = 1;
  std::vector<int8_t> other;
  std::vector<float> rounded;
  Residual& r = f.residual;
  if (call.precision == Precision::kInt8) {
    check_finite(call.a, call.rows * call.channels, call.layer + ": its first input", pool);
    check_finite(call.b, call.rows * call.channels, call.layer + ": its second input", pool);
    other = quantise_rows(kernels, call.b, call.rows, call.channels, call.amax1, pool);
    r.kind = Residual::kInt8;
    r.other = other.data();
    r.stride = int8_row(call.channels);
    r.self_factor = 127.0f / call.amax0;
    r.self_scale = call.amax0 / 127.0f;
    r.other_scale = call.amax1 / 127.0f;
  } else {
    r.kind = Residual::kFloat32;
    r.other = call.b;
    r.stride = call.channels;
    if (call.precision == Precision::kFloat16) {
      rounded.resize(size_t(call.rows * call.channels));
      const Emission half = emission(Emission::kFloat32, rounded.data(), call.channels, true);
      Finish g = float_rows(call.b, call.channels);
      g.emissions = &half;
      g.emission_count = 1;
      fail_if_lost(run_finish(kernels, g, call.rows, pool), call.layer + " (its second input)");
      r.other = rounded.data();
      r.through_half = true;
    }
  }
  fail_if_lost(run_finish(kernels, f, call.rows, pool), call.layer);
}

}  // namespace scn
