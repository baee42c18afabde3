// SPDX-License-Identifier: Apache-2.0
// The parts of a kernel table that need no intrinsics. Each instruction set's file includes this once and
// compiles it with its own flags; everything has internal linkage, so the linker cannot mix the copies.
#include <cmath>
#include <cstring>

#include "cpu/kernels.h"
#include "half.h"

namespace scn {
namespace {

/// max(v, 0); NaN stays NaN, so that it can be reported where the value is stored.
inline float relu(float v) { return v <= 0.0f ? 0.0f : v; }

/// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even, for |v| < 2^22.
constexpr float kRounder = 12582912.0f;

inline int32_t quantise(float v, float factor) {
  float scaled = v * factor;
  // Clamping first gives the same integers, because the bounds are integers, and keeps the rounding trick in
  // range.
  scaled = scaled < -128.0f ? -128.0f : scaled;
  scaled = scaled > 127.0f ? 127.0f : scaled;
  const float shifted = scaled + kRounder;
  return int32_t(shifted - kRounder);
}

/// Lists the rows of a tile that have a neighbour at offset `k`: `rows` their numbers in the tile, `sources`
/// the input rows. Returns how many.
inline int32_t active_rows(const GatherGemm& g, int64_t begin, int64_t end, int32_t k, int32_t* rows,
                           int32_t* sources) {
  int32_t count = 0;
  const int32_t* entry = g.map + begin * g.offsets + k;
  for (int32_t r = 0; r < int32_t(end - begin); ++r, entry += g.offsets) {
    rows[count] = r;
    sources[count] = *entry;
    count += *entry >= 0;
  }
  return count;
}

#ifndef SCN_HAVE_HALF_VECTORS
inline void row_from_half(const uint16_t* in, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = half_to_float(in[i]);
}

inline int64_t row_to_half(const float* in, uint16_t* out, int64_t count) {
  int64_t lost = 0;
  for (int64_t i = 0; i < count; ++i) {
    out[i] = float_to_half(in[i]);
    lost += !(std::fabs(in[i]) < kHalfOverflow);
  }
  return lost;
}
#endif

/// Rounds a row to float16 values kept as float32. Returns how many do not fit.
inline int64_t round_row(float* y, int32_t channels) {
  uint16_t half[64];
  int64_t lost = 0;
  for (int32_t n = 0; n < channels; n += 64) {
    const int32_t width = channels - n < 64 ? channels - n : 64;
    lost += row_to_half(y + n, half, width);
    row_from_half(half, y + n, width);
  }
  return lost;
}

inline void emit_int8(const Emission& e, const float* y, int32_t channels, int8_t* out) {
  if (e.relu) {
    for (int32_t n = 0; n < channels; ++n) out[n] = int8_t(quantise(relu(y[n]), e.factor));
  } else {
    for (int32_t n = 0; n < channels; ++n) out[n] = int8_t(quantise(y[n], e.factor));
  }
}

/// Stores one row in one form. `y` holds the value; `scratch` has room for a row.
inline int64_t emit_row(const Emission& e, const float* y, int32_t channels, int64_t row, float* scratch) {
  int64_t lost = 0;
  const float* value = y;
  if ((e.through_half && e.kind != Emission::kFloat16) || (e.relu && e.kind != Emission::kInt8)) {
    std::memcpy(scratch, y, size_t(channels) * sizeof(float));
    if (e.relu) {
      for (int32_t n = 0; n < channels; ++n) scratch[n] = relu(scratch[n]);
    }
    if (e.through_half && e.kind != Emission::kFloat16) lost = round_row(scratch, channels);
    value = scratch;
  }
  if (e.kind == Emission::kInt8) {
    int8_t* out = static_cast<int8_t*>(e.out) + row * e.stride;
    emit_int8(e, value, channels, out);
    if (e.padded > channels) std::memset(out + channels, 0, size_t(e.padded - channels));
  } else if (e.kind == Emission::kFloat16) {
    uint16_t* out = static_cast<uint16_t*>(e.out) + row * e.stride;
    lost += row_to_half(value, out, channels);
    if (e.padded > channels) std::memset(out + channels, 0, size_t(e.padded - channels) * 2);
  } else {
    float* out = static_cast<float*>(e.out) + row * e.stride;
    std::memcpy(out, value, size_t(channels) * 4);
    if (e.padded > channels) std::memset(out + channels, 0, size_t(e.padded - channels) * 4);
  }
  return lost;
}

inline void dequantise_row(const int32_t* acc, const float* scale, const float* bias, float* y,
                           int32_t channels) {
  for (int32_t n = 0; n < channels; ++n) y[n] = __builtin_fmaf(float(acc[n]), scale[n], bias[n]);
}

/// y = fma(q_a, s_a, q_b * s_b) of the Add's inputs a and b, of which `self` is one.
inline float add_int8(const Residual& r, int32_t self, int32_t other) {
  return r.self_is_second ? __builtin_fmaf(float(other), r.other_scale, float(self) * r.self_scale)
                          : __builtin_fmaf(float(self), r.self_scale, float(other) * r.other_scale);
}

/// Adds the other operand to `y`. Returns how many values of self do not fit in float16, where it is rounded.
inline int64_t add_row(const Finish& f, int64_t row, float* y) {
  int64_t lost = 0;
  const Residual& r = f.residual;
  if (r.kind == Residual::kInt8) {
    const int8_t* other = static_cast<const int8_t*>(r.other) + row * r.stride;
    if (f.self_int8) {
      const int8_t* self = f.self_int8 + row * f.stride;
      for (int32_t n = 0; n < f.channels; ++n) y[n] = add_int8(r, self[n], other[n]);
    } else {
      for (int32_t n = 0; n < f.channels; ++n) y[n] = add_int8(r, quantise(y[n], r.self_factor), other[n]);
    }
  } else if (r.kind == Residual::kFloat) {
    const float* other = static_cast<const float*>(r.other) + row * r.stride;
    if (r.through_half) lost += round_row(y, f.channels);
    for (int32_t n = 0; n < f.channels; ++n) y[n] += other[n];
  }
  return lost;
}

Overflow finish_rows(const Finish& f, int64_t begin, int64_t end) {
  Overflow lost{0, 0};
  float* y = f.scratch;
  for (int64_t row = begin; row < end; ++row) {
    if (f.int_sums) {
      dequantise_row(f.int_sums + (row - begin) * f.stride, f.scale, f.bias, y, f.channels);
    } else if (f.float_sums) {
      const float* sums = f.float_sums + (row - begin) * f.stride;
      for (int32_t n = 0; n < f.channels; ++n) y[n] = f.bias ? sums[n] + f.bias[n] : sums[n];
    }
    if (f.relu) {
      for (int32_t n = 0; n < f.channels; ++n) y[n] = relu(y[n]);
    }
    if (f.through_half) lost.before_add += round_row(y, f.channels);
    lost.before_add += add_row(f, row, y);
    int64_t stored = 0;
    for (int32_t i = 0; i < f.emission_count; ++i) {
      const int64_t once = emit_row(f.emissions[i], y, f.channels, row, f.scratch + f.channels);
      stored = once > stored ? once : stored;
    }
    lost.stored += stored;
  }
  return lost;
}

void convert_from_half(const uint16_t* in, float* out, int64_t count) { row_from_half(in, out, count); }
int64_t convert_to_half(const float* in, uint16_t* out, int64_t count) { return row_to_half(in, out, count); }

}  // namespace
}  // namespace scn
