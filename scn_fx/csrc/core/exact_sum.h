// SPDX-License-Identifier: Apache-2.0
// Sums that are the same in any order: values are whole numbers of 2^-64 in 128 bits, whose addition loses
// nothing. What a value has below 2^-64 is cut off.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/both.h"

namespace scn {

/// Values must be smaller than this: 2^31 of them stay below 2^62.
constexpr double kExactSumLimit = 0x1p31;

/// A number of 128 bits in two's complement, in units of 2^-64.
struct ExactSum {
  uint64_t low = 0, high = 0;

  SCN_FX_BOTH void add(const ExactSum& other) {
    low += other.low;
    high += other.high + (low < other.low ? 1 : 0);
  }
};

SCN_FX_BOTH static inline ExactSum negated(const ExactSum& s) {
  ExactSum n;
  n.low = ~s.low + 1;
  n.high = ~s.high + (n.low == 0 ? 1 : 0);
  return n;
}

/// `v` as such a number; |v| < kExactSumLimit.
SCN_FX_BOTH static inline ExactSum exact_term(double v) {
  const double magnitude = v < 0 ? -v : v;
  ExactSum s;
  s.high = uint64_t(uint32_t(magnitude));
  s.low = uint64_t((magnitude - double(uint32_t(magnitude))) * 0x1p64);
  return v < 0 ? negated(s) : s;
}

/// Zeros above the highest one bit of a number that is not zero.
SCN_FX_BOTH static inline int leading_zeros(uint64_t v) {
#if defined(__CUDA_ARCH__)
  return __clzll(static_cast<long long>(v));
#else
  return __builtin_clzll(v);
#endif
}

/// The sum, rounded once to the nearest double, ties to even.
SCN_FX_BOTH static inline double rounded_sum(const ExactSum& s) {
  const bool negative = s.high >> 63;
  const ExactSum m = negative ? negated(s) : s;
  double magnitude;
  if (m.high == 0) {
    magnitude = double(m.low) * 0x1p-64;
  } else {
    // The upper 64 of its bits, and in the last of them whether others follow: far below where a double ends.
    const int shift = leading_zeros(m.high);  // at least 1: sums stay below 2^63
    const uint64_t top = m.high << shift | m.low >> (64 - shift), rest = m.low << shift;
    magnitude = double(top | (rest ? 1 : 0)) / double(uint64_t(1) << shift);
  }
  return negative ? -magnitude : magnitude;
}

/// The mean of `count` values: the sum rounded to double, divided, and rounded to float.
SCN_FX_BOTH static inline float exact_mean(const ExactSum& s, int64_t count) {
  return float(rounded_sum(s) / double(count));
}

}  // namespace scn
