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
// NaN passes through every activation. Padded channels, whose sums are zero, become what zero gives, which is
// finite: nobody reads them but with weights of zero.
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

/// 1 + e^z, for quotients; infinity where that is none of float32.
template <typename V>
SCN_FX_LANES V one_and_exponential(const V& z) {
  return add(splat_as(z, 1.0f), exponential(z));
}

template <typename V>
SCN_FX_LANES V negated(const V& x) {
  return mul(x, splat_as(x, -1.0f));
}

/// x / (1 + e^-x).
template <typename V>
SCN_FX_LANES V silu(const V& x) {
  return divide(x, one_and_exponential(negated(x)));
}

/// 1 / (1 + e^-x).
template <typename V>
SCN_FX_LANES V sigmoid(const V& x) {
  return divide(splat_as(x, 1.0f), one_and_exponential(negated(x)));
}

/// 1 - 2 / (1 + e^2x): within 2^-23 of tanh(x).
template <typename V>
SCN_FX_LANES V hyperbolic_tangent(const V& x) {
  const V twice = add(x, x);
  return add(splat_as(x, 1.0f), divide(splat_as(x, -2.0f), one_and_exponential(twice)));
}

/// x Phi(x). Phi(-|x|) = e^(-x^2 / 2) t (a_1 + t (a_2 + ...)) / 2 with t = 1 / (1 + p |x| / sqrt 2):
/// Abramowitz and Stegun 7.1.26, within 1e-7 of Phi.
template <typename V>
SCN_FX_LANES V gelu(const V& x) {
  const V size = where_positive(x, x, negated(x));
  const V t = divide(splat_as(x, 1.0f), add(splat_as(x, 1.0f), mul(size, splat_as(x, 0.23164189f))));
  constexpr float kSeries[] = {-0.72657603f, 0.7107069f, -0.14224836f, 0.1274148f};  // a / 2
  V tail = splat_as(x, 0.5307027f);
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (float coefficient : kSeries) tail = add(mul(tail, t), splat_as(x, coefficient));
  tail = mul(mul(tail, t), exponential(mul(mul(x, x), splat_as(x, -0.5f))));
  return mul(x, where_positive(x, add(splat_as(x, 1.0f), negated(tail)), tail));
}

/// x / (1 + e^(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3): what torch calls approximate="tanh".
template <typename V>
SCN_FX_LANES V gelu_tanh(const V& x) {
  const V cube = mul(mul(x, x), x);
  const V u = add(x, mul(cube, splat_as(x, 0.044715f)));
  return divide(x, one_and_exponential(mul(u, splat_as(x, -1.5957692f))));
}

/// min(max(x, 0), 6).
template <typename V>
SCN_FX_LANES V relu6(const V& x) {
  return at_most(relu(x), 6.0f);
}

/// min(max(x + 3, 0), 6) / 6.
template <typename V>
SCN_FX_LANES V hardsigmoid(const V& x) {
  return divide(relu6(add(x, splat_as(x, 3.0f))), splat_as(x, 6.0f));
}

/// All but the usual ones, out of their way.
template <typename V>
SCN_FX_RARE V rare_activation(const Activation& a, const V& x) {
  switch (a.kind) {
    case ActivationKind::kNone:
    case ActivationKind::kRelu:
      break;
    case ActivationKind::kLeakyRelu:
      return leaky_relu(x, a.parameter);
    case ActivationKind::kSilu:
      return silu(x);
    case ActivationKind::kSigmoid:
      return sigmoid(x);
    case ActivationKind::kTanh:
      return hyperbolic_tangent(x);
    case ActivationKind::kGelu:
      return gelu(x);
    case ActivationKind::kGeluTanh:
      return gelu_tanh(x);
    case ActivationKind::kRelu6:
      return relu6(x);
    case ActivationKind::kHardswish:
      return mul(x, hardsigmoid(x));
    case ActivationKind::kHardsigmoid:
      return hardsigmoid(x);
  }
  return x;
}

template <typename V>
SCN_FX_LANES V activate(const Activation& a, const V& x) {
  if (a.kind == ActivationKind::kNone) return x;
  if (a.kind == ActivationKind::kRelu) return relu(x);
  return rare_activation(a, x);
}

}  // namespace
}  // namespace scn
