// SPDX-License-Identifier: Apache-2.0
// What activations compute, written once for both backends: V is the float of a thread of a GPU, or the
// sixteen lanes of a Vec16. Whoever includes this has declared, before it and for its V, with IEEE float32
// arithmetic that rounds after each operation:
//
//   add(v, w), mul(v, w), divide(v, w), relu(v)
//   splat_as(v, f)                  f in each lane
//   at_least(v, f), at_most(v, f)   the larger and the smaller of both; NaN stays NaN
//   where_positive(v, yes, no)      lane by lane; `no` where v is NaN
//   half_power_of_two(v)            2^(n - 1) from v = n + kRounder, for n in [-125, 128]
//
// No operation is fused with another, so that torch and NumPy compute the same bits operation by operation.
// NaN passes through every activation, and zero gives zero: padded channels stay zero.
#pragma once

#include "core/activation.h"
#include "core/numerics.h"

namespace scn {
namespace {

/// x, or slope * x where x is not positive.
template <typename V>
SCN_FX_LANES V leaky_relu(const V& x, float slope) {
  return where_positive(x, x, mul(x, splat_as(x, slope)));
}

/// e^z within two units in the last place: e^z = 2^n e^r with |r| <= ln(2) / 2, and e^r by its series. The
/// logarithm is subtracted in two parts, of which the first has so few bits that n times it is exact (Cody
/// and Waite). Below -86 it is e^-86, above 88.8 infinity.
template <typename V>
SCN_FX_LANES V exponential(V z) {
  z = at_most(at_least(z, -86.0f), 89.0f);
  const V shifted = add(mul(z, splat_as(z, 0x1.715476p+0f)), splat_as(z, kRounder));
  const V n = add(shifted, splat_as(z, -kRounder));
  V r = add(z, mul(n, splat_as(z, -0x1.63p-1f)));
  r = add(r, mul(n, splat_as(z, 0x1.bd0106p-13f)));
  constexpr float kSeries[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};  // 1 / k!
  V power = splat_as(z, 1.0f / 5040);
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (float coefficient : kSeries) power = add(mul(power, r), splat_as(z, coefficient));
  return mul(mul(power, half_power_of_two(shifted)), splat_as(z, 2.0f));
}

/// x / (1 + e^-x).
template <typename V>
SCN_FX_LANES V silu(const V& x) {
  return divide(x, add(splat_as(x, 1.0f), exponential(mul(x, splat_as(x, -1.0f)))));
}

template <typename V>
SCN_FX_LANES V activate(const Activation& a, const V& x) {
  switch (a.kind) {
    case ActivationKind::kNone:
      return x;
    case ActivationKind::kRelu:
      return relu(x);
    case ActivationKind::kLeakyRelu:
      return leaky_relu(x, a.parameter);
    case ActivationKind::kSilu:
      return silu(x);
  }
  return x;
}

}  // namespace
}  // namespace scn
