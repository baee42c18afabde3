// SPDX-License-Identifier: Apache-2.0
// Sixteen float32 lanes in plain C++; the other vec16 files have the same functions with the same results.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/numerics.h"
#include "scn_fx/half.h"

namespace scn {
namespace {

struct Vec16 {
  float lane[16];
};

template <typename Lane>
inline Vec16 each_lane(const Lane& lane) {
  Vec16 out;
  for (int i = 0; i < 16; ++i) out.lane[i] = lane(i);
  return out;
}

inline Vec16 load16(const float* p) {
  Vec16 v;
  std::memcpy(v.lane, p, sizeof(v.lane));
  return v;
}
inline void store16(float* p, const Vec16& v) { std::memcpy(p, v.lane, sizeof(v.lane)); }
inline Vec16 splat16(float f) {
  return each_lane([&](int) { return f; });
}
inline Vec16 from_int32(const int32_t* p) {
  return each_lane([&](int i) { return float(p[i]); });
}
inline Vec16 from_int8(const int8_t* p) {
  return each_lane([&](int i) { return float(p[i]); });
}
inline Vec16 add(const Vec16& a, const Vec16& b) {
  return each_lane([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Vec16 mul(const Vec16& a, const Vec16& b) {
  return each_lane([&](int i) { return a.lane[i] * b.lane[i]; });
}
/// a * b + c, rounded once.
inline Vec16 fma(const Vec16& a, const Vec16& b, const Vec16& c) {
  return each_lane([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
}
/// max(v, +0); NaN stays NaN, so that it can be reported where the value is stored.
inline Vec16 relu(const Vec16& v) {
  return each_lane([&](int i) { return v.lane[i] <= 0.0f ? 0.0f : v.lane[i]; });
}

inline Vec16 divide(const Vec16& a, const Vec16& b) {
  return each_lane([&](int i) { return a.lane[i] / b.lane[i]; });
}
inline Vec16 splat_as(const Vec16&, float f) { return splat16(f); }
inline Vec16 at_least(const Vec16& v, float f) {
  return each_lane([&](int i) { return v.lane[i] < f ? f : v.lane[i]; });
}
inline Vec16 at_most(const Vec16& v, float f) {
  return each_lane([&](int i) { return v.lane[i] > f ? f : v.lane[i]; });
}
inline Vec16 where_positive(const Vec16& v, const Vec16& yes, const Vec16& no) {
  return each_lane([&](int i) { return v.lane[i] > 0.0f ? yes.lane[i] : no.lane[i]; });
}
inline Vec16 half_power_of_two(const Vec16& v) {
  return each_lane([&](int i) {
    uint32_t bits;
    std::memcpy(&bits, &v.lane[i], sizeof(bits));
    bits = (bits + 126) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof(power));
    return power;
  });
}

/// clamp(round_half_even(v), -128, 127). Clamping first gives the same integers, because the bounds are
/// integers; the rounder then rounds to the nearest integer, ties to even.
inline Vec16 to_q(const Vec16& v) {
  return each_lane([&](int i) {
    float x = v.lane[i];
    x = x > -128.0f ? x : -128.0f;  // -128 for NaN too, as everywhere
    x = x > 127.0f ? 127.0f : x;
    const float shifted = x + kRounder;
    return shifted - kRounder;
  });
}
/// Stores the integers that to_q gives.
inline void store_q(int8_t* p, const Vec16& q) {
  for (int i = 0; i < 16; ++i) p[i] = int8_t(q.lane[i]);
}

/// Rounds to float16 and back; adds to `lost` the lanes that became infinite or were not finite.
inline Vec16 through_half(const Vec16& v, int64_t* lost) {
  return each_lane([&](int i) {
    *lost += !(std::fabs(v.lane[i]) < kHalfOverflow);
    return half_to_float(float_to_half(v.lane[i]));
  });
}
/// Stores float16 bits; counts as through_half does.
inline void store_half(uint16_t* p, const Vec16& v, int64_t* lost) {
  for (int i = 0; i < 16; ++i) {
    *lost += !(std::fabs(v.lane[i]) < kHalfOverflow);
    p[i] = float_to_half(v.lane[i]);
  }
}
inline Vec16 load_half(const uint16_t* p) {
  return each_lane([&](int i) { return half_to_float(p[i]); });
}

}  // namespace
}  // namespace scn

// after the vectors it is written in
#include "cpu/kernels/vec16_tails-inl.h"
