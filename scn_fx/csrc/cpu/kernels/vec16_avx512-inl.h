// SPDX-License-Identifier: Apache-2.0
// Sixteen float32 lanes in one AVX-512 register.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "core/numerics.h"
#include "scn_fx/half.h"

namespace scn {
namespace {

using Vec16 = __m512;

inline Vec16 load16(const float* p) { return _mm512_loadu_ps(p); }
inline void store16(float* p, Vec16 v) { _mm512_storeu_ps(p, v); }
// The first `count` < 16 lanes; the others are zero, or are not stored.
inline Vec16 load_first(const float* p, int32_t count) {
  return _mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p);
}
inline void store_first(float* p, Vec16 v, int32_t count) {
  _mm512_mask_storeu_ps(p, __mmask16((1u << count) - 1), v);
}
inline Vec16 splat16(float f) { return _mm512_set1_ps(f); }
inline Vec16 from_int32(const int32_t* p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
inline Vec16 from_int8(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline Vec16 add(Vec16 a, Vec16 b) { return _mm512_add_ps(a, b); }
inline Vec16 mul(Vec16 a, Vec16 b) { return _mm512_mul_ps(a, b); }
inline Vec16 fma(Vec16 a, Vec16 b, Vec16 c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec16 relu(Vec16 v) {
  // zeroes the lanes that are at most zero and keeps the others, NaN included
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NLE_UQ), v);
}

inline Vec16 divide(Vec16 a, Vec16 b) { return _mm512_div_ps(a, b); }
inline Vec16 splat_as(Vec16, float f) { return splat16(f); }
// The second operand where one of both is NaN.
inline Vec16 at_least(Vec16 v, float f) { return _mm512_max_ps(_mm512_set1_ps(f), v); }
inline Vec16 at_most(Vec16 v, float f) { return _mm512_min_ps(_mm512_set1_ps(f), v); }
inline Vec16 where_positive(Vec16 v, Vec16 yes, Vec16 no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_GT_OQ), no, yes);
}
inline Vec16 half_power_of_two(Vec16 v) {
  const __m512i biased = _mm512_add_epi32(_mm512_castps_si512(v), _mm512_set1_epi32(126));
  return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}

inline Vec16 to_q(Vec16 v) {
  v = _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(-128.0f)), _mm512_set1_ps(127.0f));
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline void store_q(int8_t* p, Vec16 q) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(q)));
}

inline int64_t count_lost(Vec16 v) {
  // "not less than" is true for NaN as well
  return __builtin_popcount(_mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(kHalfOverflow), _CMP_NLT_UQ));
}
inline Vec16 through_half(Vec16 v, int64_t* lost) {
  *lost += count_lost(v);
  return _mm512_cvtph_ps(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_half(uint16_t* p, Vec16 v, int64_t* lost) {
  *lost += count_lost(v);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline Vec16 load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

}  // namespace
}  // namespace scn
