// SPDX-License-Identifier: Apache-2.0
// Which dynamic ranges int8 can be computed with: the same as in Python (scn_fx.ranges).
#pragma once

namespace scn {

/// From 2^-100 to 2^100 (which NaN and infinity are not): 127 / amax and amax / 127 are normal numbers, and
/// what two of them add up to is finite.
inline bool usable_range(float amax) { return amax >= 0x1p-100f && amax <= 0x1p+100f; }

/// Whether sums of 32 bits can be multiplied by a product of two scales: it is a normal number, where smaller
/// ones would turn sums into zeros, and no sum times it is infinite.
inline bool usable_scale(float scale) { return scale >= 0x1p-126f && scale <= 0x1p+96f; }

/// What a range must be, for messages.
constexpr const char* kUsableRange = "a number from 7.9e-31 to 1.27e+30 (2^-100 to 2^100)";

}  // namespace scn
