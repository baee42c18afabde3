// SPDX-License-Identifier: Apache-2.0
// The numbers that decide the last bit of a result, and what can be computed with: once, for both backends.
// docs/explanation/numerics.md has the rules; the numpy oracle of the tests has them a second time. Functions
// are static: files that are compiled for newer processors include this, and the linker must not mix copies.
#pragma once

#include <cstdint>

#include "core/both.h"

namespace scn {

// q(v, amax) = clamp(round_half_even(v * (127 / amax)), -128, 127)
constexpr float kLowestInt8 = -128.0f, kHighestInt8 = 127.0f;
SCN_FX_BOTH static inline float int8_factor(float amax) { return 127.0f / amax; }
SCN_FX_BOTH static inline float int8_scale(float amax) { return amax / 127.0f; }
/// What sums of products of quantised values are multiplied by.
SCN_FX_BOTH static inline float product_scale(float input_amax, float weight_amax) {
  return int8_scale(input_amax) * int8_scale(weight_amax);
}

/// Added to a float and subtracted again, it rounds to an integer, ties to even, for magnitudes below 2^22:
/// 1.5 * 2^23 leaves no bits for a fraction. The low bits of the sum are the integer in two's complement.
constexpr float kRounder = 12582912.0f;

/// Magnitudes from here on round to infinity in float16 (halfway between 65504 and 65536 ties to even).
constexpr float kHalfOverflow = 65520.0f;

/// Input channels up to which a layer in float16 has a specified order of sums: fused multiply-adds in
/// float32, offsets ascending, then channels. Wider ones may sum in any order.
constexpr int32_t kMostChainChannels = 8;

/// Offsets times input channels up to which a sum of int8 products surely stays in 32 bits: (2^17 - 1) * 2^14
/// < 2^31.
constexpr int64_t kMostInt8Terms = (int64_t(1) << 17) - 1;

/// Dynamic ranges that int8 can be computed with, as in Python (scn_fx.ranges): from 2^-100 to 2^100 (which
/// NaN and infinity are not), 127 / amax and amax / 127 are normal numbers, and what two of them add up to is
/// finite.
static inline bool usable_range(float amax) { return amax >= 0x1p-100f && amax <= 0x1p+100f; }
/// What a range must be, for messages.
constexpr const char* kUsableRange = "a number from 7.9e-31 to 1.27e+30 (2^-100 to 2^100)";

/// Whether sums of 32 bits can be multiplied by a product of two scales: it is a normal number, where smaller
/// ones would turn sums into zeros, and no sum times it is infinite.
static inline bool usable_scale(float scale) { return scale >= 0x1p-126f && scale <= 0x1p+96f; }

/// The numbers of an int8 Add, seen from the value at hand ("self"): 127 / amax and amax / 127 of self, amax
/// / 127 of the other operand.
struct AddScales {
  float self_factor = 0.0f, self_scale = 0.0f, other_scale = 0.0f;
};
static inline AddScales add_scales(float self_amax, float other_amax) {
  return {int8_factor(self_amax), int8_scale(self_amax), int8_scale(other_amax)};
}

}  // namespace scn
