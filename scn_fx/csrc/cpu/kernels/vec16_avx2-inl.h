// SPDX-License-Identifier: Apache-2.0
// Sixteen float32 lanes in two AVX2 registers.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "core/numerics.h"
#include "scn_fx/half.h"

namespace scn {
namespace {

struct Vec16 {
  __m256 lo, hi;
};

inline Vec16 load16(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store16(float* p, const Vec16& v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
inline Vec16 splat16(float f) { return {_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
inline Vec16 from_int32(const int32_t* p) {
  const __m256i* q = reinterpret_cast<const __m256i*>(p);
  return {_mm256_cvtepi32_ps(_mm256_loadu_si256(q)), _mm256_cvtepi32_ps(_mm256_loadu_si256(q + 1))};
}
inline Vec16 from_int8(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
inline Vec16 add(const Vec16& a, const Vec16& b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Vec16 mul(const Vec16& a, const Vec16& b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Vec16 fma(const Vec16& a, const Vec16& b, const Vec16& c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline __m256 relu8(__m256 v) {
  const __m256 zero = _mm256_setzero_ps();
  return _mm256_andnot_ps(_mm256_cmp_ps(v, zero, _CMP_LE_OQ), v);
}
inline Vec16 relu(const Vec16& v) { return {relu8(v.lo), relu8(v.hi)}; }

inline Vec16 divide(const Vec16& a, const Vec16& b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline Vec16 splat_as(const Vec16&, float f) { return splat16(f); }
// The second operand where one of both is NaN.
inline Vec16 at_least(const Vec16& v, float f) {
  return {_mm256_max_ps(_mm256_set1_ps(f), v.lo), _mm256_max_ps(_mm256_set1_ps(f), v.hi)};
}
inline Vec16 at_most(const Vec16& v, float f) {
  return {_mm256_min_ps(_mm256_set1_ps(f), v.lo), _mm256_min_ps(_mm256_set1_ps(f), v.hi)};
}
inline __m256 where_positive8(__m256 v, __m256 yes, __m256 no) {
  return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_GT_OQ));
}
inline Vec16 where_positive(const Vec16& v, const Vec16& yes, const Vec16& no) {
  return {where_positive8(v.lo, yes.lo, no.lo), where_positive8(v.hi, yes.hi, no.hi)};
}
inline __m256 half_power_of_two8(__m256 v) {
  const __m256i biased = _mm256_add_epi32(_mm256_castps_si256(v), _mm256_set1_epi32(126));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline Vec16 half_power_of_two(const Vec16& v) {
  return {half_power_of_two8(v.lo), half_power_of_two8(v.hi)};
}

inline __m256 to_q8(__m256 v) {
  v = _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(-128.0f)), _mm256_set1_ps(127.0f));
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec16 to_q(const Vec16& v) { return {to_q8(v.lo), to_q8(v.hi)}; }
inline void store_q(int8_t* p, const Vec16& q) {
  // packs works in halves of registers: 0-3 8-11 | 4-7 12-15, so put the quarters back in order
  const __m256i words = _mm256_permute4x64_epi64(
      _mm256_packs_epi32(_mm256_cvtps_epi32(q.lo), _mm256_cvtps_epi32(q.hi)), _MM_SHUFFLE(3, 1, 2, 0));
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

inline int64_t count_lost(__m256 v) {
  const __m256 magnitude = _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
  // "not less than" is true for NaN as well
  return __builtin_popcount(
      uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(magnitude, _mm256_set1_ps(kHalfOverflow), _CMP_NLT_UQ))));
}
inline Vec16 through_half(const Vec16& v, int64_t* lost) {
  *lost += count_lost(v.lo) + count_lost(v.hi);
  return {_mm256_cvtph_ps(_mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT)),
          _mm256_cvtph_ps(_mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT))};
}
inline void store_half(uint16_t* p, const Vec16& v, int64_t* lost) {
  *lost += count_lost(v.lo) + count_lost(v.hi);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT));
}
inline Vec16 load_half(const uint16_t* p) {
  const __m128i* q = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}

}  // namespace
}  // namespace scn

// after the vectors it is written in
#include "cpu/kernels/vec16_tails-inl.h"
