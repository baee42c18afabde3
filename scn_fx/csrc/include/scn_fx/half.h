// SPDX-License-Identifier: Apache-2.0
// IEEE 754 binary16 by bit arithmetic: round to nearest even, subnormals, infinities and NaN kept.
#pragma once

#include <cstdint>
#include <cstring>

namespace scn {

/// The value of float16 bits: exact.
static inline float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  uint32_t bits;
  if (magnitude >= 0x7c00u) {
    bits = 0x7f800000u | (magnitude << 13);
  } else if (magnitude >= 0x0400u) {
    bits = (magnitude << 13) + 0x38000000u;  // exponent bias 127 - 15 = 112, shifted by 23
  } else {
    const float value = float(magnitude) * 0x1p-24f;  // subnormals count units of 2^-24: exact
    std::memcpy(&bits, &value, 4);
  }
  bits |= sign;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

/// The float16 bits nearest to a value; ties go to even.
static inline uint16_t float_to_half(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits >= 0x7f800000u) return uint16_t(sign | (bits > 0x7f800000u ? 0x7e00u : 0x7c00u));
  if (bits >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // >= 65520
  if (bits <
      0x38800000u) {  // below 2^-14: adding 0.5 leaves the subnormal, rounded by the FPU, in the low bits
    float magnitude;
    std::memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    uint32_t shifted;
    std::memcpy(&shifted, &magnitude, 4);
    return uint16_t(sign | (shifted - 0x3f000000u));
  }
  const uint32_t odd = (bits >> 13) & 1u;
  return uint16_t(sign | ((bits + 0xfffu + odd - 0x38000000u) >> 13));
}

}  // namespace scn
