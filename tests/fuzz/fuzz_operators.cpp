// SPDX-License-Identifier: Apache-2.0
// The single operators over caller-owned arrays: values, ranges and map entries at their edges, results
// against plain loops where the arithmetic is specified to the bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "bytes.h"
#include "check.h"
#include "core/error.h"
#include "core/memory_budget.h"
#include "cpu/convolution/convolution.h"
#include "cpu/operators/functions.h"
#include "scn_fx/half.h"
#include "tally.h"

namespace {

using fuzz::Bytes;

constexpr int64_t kMemory = int64_t(16) << 20;
constexpr size_t kFixedOrderChannels = 8;  // up to these an fp16 sum has one order

scn::ThreadPool& draw_pool(Bytes& bytes) {
  static scn::ThreadPool one(1), two(2);
  return bytes.chance(10) ? two : one;
}

std::vector<float> draw_values(Bytes& bytes, size_t count, bool half) {
  std::vector<float> out(count);
  uint32_t state = bytes.byte();
  for (float& value : out) {
    state = state * 1664525u + 1013904223u;
    value = float(state >> 16) / 32768.0f - 1.0f;
    if (half) value = scn::half_to_float(scn::float_to_half(value));
  }
  for (int edges = bytes.chance(30) ? bytes.between(1, 4) : 0; edges > 0 && count; --edges)
    bytes.pick(out) = bytes.edge_float();
  return out;
}

float draw_range(Bytes& bytes) {
  return bytes.chance(15) ? bytes.edge_float() : 0.25f + 0.1f * bytes.below(40);
}

/// Makes a size one that no caller can mean: then nothing may be read.
bool impossible_size(Bytes& bytes, int64_t& size) {
  const int64_t edge = bytes.edge();
  if (edge >= 0 && edge <= INT32_MAX) return false;
  size = edge;
  return true;
}

float rounded(float v) { return scn::half_to_float(scn::float_to_half(v)); }

int32_t quantised(float v, float amax) {
  const float scaled = v * (127.0f / amax);
  return int32_t(std::min(127.0f, std::max(-128.0f, std::nearbyintf(scaled))));
}

void same_bits(float got, float expected, size_t at) {
  FUZZ_CHECK(!std::memcmp(&got, &expected, 4) || (std::isnan(got) && std::isnan(expected)),
             "value %zu: %.9g, expected %.9g", at, double(got), double(expected));
}

/// A value of a result, whatever it is stored in.
float value_at(const scn::Convolved& y, int64_t row, int64_t channel) {
  const int64_t at = row * y.columns + channel;
  if (y.type == scn::ElementType::kInt8) return float(reinterpret_cast<const int8_t*>(y.rows.get())[at]);
  if (y.type == scn::ElementType::kFloat16)
    return scn::half_to_float(reinterpret_cast<const uint16_t*>(y.rows.get())[at]);
  return reinterpret_cast<const float*>(y.rows.get())[at];
}

void convolve(Bytes& bytes) {
  static constexpr int32_t channels[] = {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 32, 33, 64};
  static constexpr scn::ElementType precisions[] = {scn::ElementType::kInt8, scn::ElementType::kFloat16,
                                                    scn::ElementType::kFloat32};
  scn::ConvolutionCall call{};
  call.out_channels = bytes.pick(channels);
  call.in_channels = bytes.pick(channels);
  // few weights, so that an execution stays short
  const int32_t most = std::max(1, int32_t(8192 / (call.out_channels * call.in_channels)));
  call.offsets = std::min(most, bytes.chance(5) ? bytes.between(1, 80) : bytes.between(1, 27));
  call.precision = bytes.pick(precisions);
  call.layer = "layer";
  call.in_sites = bytes.between(0, 20);
  call.out_sites = bytes.between(0, 20);
  const size_t in = size_t(call.in_channels), out = size_t(call.out_channels), offsets = size_t(call.offsets);
  const bool half = call.precision == scn::ElementType::kFloat16,
             int8 = call.precision == scn::ElementType::kInt8;
  const std::vector<float> weight = draw_values(bytes, out * offsets * in, half);
  const std::vector<float> bias = draw_values(bytes, out, half);
  const std::vector<float> features = draw_values(bytes, size_t(call.in_sites) * in, half);
  std::vector<float> ranges(out, draw_range(bytes));
  bytes.pick(ranges) = draw_range(bytes);
  std::vector<int32_t> map(size_t(call.out_sites) * offsets);
  uint32_t state = bytes.byte();
  for (int32_t& row : map) {
    state = state * 1664525u + 1013904223u;
    row = int32_t((state >> 16) % uint32_t(call.in_sites + 1)) - 1;
  }
  if (!map.empty() && bytes.chance(10)) bytes.pick(map) = bytes.edge32(INT32_MIN);
  call.weight = weight.data();
  call.bias = bytes.chance(80) ? bias.data() : nullptr;
  const float input_amax = draw_range(bytes);
  call.input_amax = input_amax;
  call.weight_amax = ranges.data();
  call.features = features.data();
  call.map = map.data();
  call.round_output = bytes.chance(50);
  const bool relu = bytes.chance(50);
  if (relu) call.activation.kind = scn::ActivationKind::kRelu;
  const int64_t out_sites = call.out_sites;
  int64_t* const sizes[] = {&call.in_sites, &call.in_channels, &call.out_channels, &call.offsets,
                            &call.out_sites};
  const bool impossible = bytes.chance(5) && impossible_size(bytes, *bytes.pick(sizes));
  scn::ThreadPool& pool = draw_pool(bytes);
  if (bytes.chance(20)) call.output_amax = draw_range(bytes);
  const bool chosen = bytes.chance(50);
  scn::Convolved y{};
  try {
    scn::MemoryBudget budget(kMemory);
    if (chosen) call.kernel = bytes.pick(scn::convolution_kernels(call, pool, budget));
    y = scn::convolve(call, pool, budget);
  } catch (const scn::Error&) {
    ++fuzz::tally().refused;
    return;
  }
  FUZZ_CHECK(!impossible, "an impossible size was taken");
  ++fuzz::tally().frames;
  const bool fixed = half && in <= kFixedOrderChannels;
  for (size_t i = 0; i < size_t(out_sites) * out; ++i) {
    const size_t row = i / out, n = i % out;
    float sum = 0.0f;
    int64_t total = 0;
    for (size_t k = 0; k < offsets; ++k) {
      const int32_t from = map[row * offsets + k];
      FUZZ_CHECK(from >= -1 && from < call.in_sites, "a map that reads row %d of %lld was taken", from,
                 (long long)call.in_sites);
      for (size_t c = 0; from >= 0 && c < in; ++c) {
        const float x = features[size_t(from) * in + c], v = weight[(n * offsets + k) * in + c];
        if (int8) total += quantised(x, input_amax) * quantised(rounded(v), ranges[n]);
        sum = std::fmaf(rounded(x), rounded(v), sum);
      }
    }
    const float added = call.bias ? rounded(bias[n]) : 0.0f;
    float expected = sum + added;
    if (int8) {
      expected = std::fmaf(float(total), input_amax / 127.0f * (ranges[n] / 127.0f), added);
    } else if (!fixed) {
      continue;
    }
    if (relu) expected = std::max(expected, 0.0f);
    if (call.round_output) expected = rounded(expected);
    if (y.type == scn::ElementType::kInt8) {
      if (!std::isnan(expected)) expected = float(quantised(expected, float(call.output_amax)));
    }
    const float got = value_at(y, int64_t(row), int64_t(n));
    if (expected == 0.0f && got == 0.0f) continue;                            // the sign of zero
    if (y.type == scn::ElementType::kInt8 && std::isnan(expected)) continue;  // which int8 has not
    same_bits(got, expected, i);
  }
}

void add(Bytes& bytes) {
  scn::AddCall call{};
  call.channels = bytes.between(1, 40);
  call.rows = bytes.between(0, 20);
  static constexpr scn::ElementType precisions[] = {scn::ElementType::kInt8, scn::ElementType::kFloat16,
                                                    scn::ElementType::kFloat32};
  call.precision = bytes.pick(precisions);
  const size_t count = size_t(call.rows) * size_t(call.channels);
  const std::vector<float> a = draw_values(bytes, count, call.precision == scn::ElementType::kFloat16);
  const std::vector<float> b = draw_values(bytes, count, false);
  call.a = a.data();
  call.b = b.data();
  call.round_output = bytes.chance(50);
  const bool relu = bytes.chance(50);
  if (relu) call.activation.kind = scn::ActivationKind::kRelu;
  const float amax0 = draw_range(bytes), amax1 = draw_range(bytes);
  call.amax0 = amax0;
  call.amax1 = amax1;
  call.layer = "layer";
  const bool impossible =
      bytes.chance(5) && impossible_size(bytes, bytes.chance(50) ? call.rows : call.channels);
  std::unique_ptr<float[]> y;
  try {
    scn::MemoryBudget budget(kMemory);
    y = scn::add(call, draw_pool(bytes), budget);
  } catch (const scn::Error&) {
    ++fuzz::tally().refused;
    return;
  }
  FUZZ_CHECK(!impossible, "an impossible size was taken");
  ++fuzz::tally().frames;
  for (size_t i = 0; i < count; ++i) {
    float expected = a[i] + b[i];
    if (call.precision == scn::ElementType::kFloat16) expected = rounded(a[i]) + rounded(b[i]);
    if (call.precision == scn::ElementType::kInt8) {
      const float s0 = amax0 / 127.0f, s1 = amax1 / 127.0f;
      expected = std::fmaf(float(quantised(a[i], amax0)), s0, float(quantised(b[i], amax1)) * s1);
    }
    if (relu) expected = std::isnan(expected) ? y[i] : std::max(expected, 0.0f);
    if (call.round_output) expected = rounded(expected);
    if (expected == 0.0f && y[i] == 0.0f) continue;
    same_bits(y[i], expected, i);
  }
}

void scatter(Bytes& bytes) {
  const scn::Triple grid{bytes.between(1, 5), bytes.between(1, 9), bytes.between(1, 70)};
  const int32_t batch = bytes.between(1, 3), channels = bytes.between(1, 20);
  const int64_t stride = channels + bytes.between(0, 16);
  const int64_t cells = int64_t(grid[0]) * grid[1] * grid[2];
  std::vector<scn::Site> sites;
  // ascending, as the engine keeps them
  for (int64_t cell = bytes.below(8); cell < batch * cells && sites.size() < 60; cell += 1 + bytes.byte()) {
    const int64_t inside = cell % cells;
    sites.push_back({int32_t(cell / cells), int32_t(inside / grid[2] / grid[1]),
                     int32_t(inside / grid[2] % grid[1]), int32_t(inside % grid[2])});
  }
  std::vector<float> rows = draw_values(bytes, sites.size() * size_t(stride), false);
  std::vector<float> dense(size_t(batch * channels * cells), -7.0f), expected(dense.size(), 0.0f);
  scn::scatter_dense(rows.data(), 4, stride, sites.data(), int64_t(sites.size()), channels, batch, grid,
                     draw_pool(bytes), dense.data());
  for (size_t i = 0; i < sites.size(); ++i) {
    const scn::Site& s = sites[i];
    for (int32_t c = 0; c < channels; ++c)
      expected[size_t((int64_t(s.batch) * channels + c) * cells + (int64_t(s.z) * grid[1] + s.y) * grid[2] +
                      s.x)] = rows[i * size_t(stride) + size_t(c)];
  }
  FUZZ_CHECK(!std::memcmp(dense.data(), expected.data(), dense.size() * 4), "the dense map");
  ++fuzz::tally().frames;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ++fuzz::tally().inputs;
  Bytes bytes(data, size);
  const uint32_t kind = bytes.below(4);
  kind < 2 ? convolve(bytes) : kind == 2 ? add(bytes) : scatter(bytes);
  return 0;
}
