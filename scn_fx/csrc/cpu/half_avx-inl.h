// SPDX-License-Identifier: Apache-2.0
// float16 rows with the F16C instructions, for the tables that have them. Include before kernels-inl.h.
#include <immintrin.h>

#include <cmath>
#include <cstdint>

#include "half.h"

#define SCN_HAVE_HALF_VECTORS
namespace scn {
namespace {

inline void row_from_half(const uint16_t* in, float* out, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
  }
  for (; i < count; ++i) out[i] = _cvtsh_ss(in[i]);
}

inline int64_t row_to_half(const float* in, uint16_t* out, int64_t count) {
  const __m256 limit = _mm256_set1_ps(kHalfOverflow),
               magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  int64_t lost = 0, i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 v = _mm256_loadu_ps(in + i);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    // "not less than" is true for NaN as well
    lost += __builtin_popcount(
        uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_and_ps(v, magnitude), limit, _CMP_NLT_UQ))));
  }
  for (; i < count; ++i) {
    out[i] = _cvtss_sh(in[i], _MM_FROUND_TO_NEAREST_INT);
    lost += !(std::fabs(in[i]) < kHalfOverflow);
  }
  return lost;
}

}  // namespace
}  // namespace scn
