// SPDX-License-Identifier: Apache-2.0
// Products of unsigned and signed bytes in 256-bit registers.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <utility>

namespace scn {
namespace {

/// A constant as an argument. Not std::integral_constant, whose conversion other files share.
template <int kValue>
struct Constant {
  [[gnu::always_inline]] constexpr operator int() const { return kValue; }
};

template <int... kIndex, typename Body>
[[gnu::always_inline]] inline void repeat_each(std::integer_sequence<int, kIndex...>, const Body& body) {
  (body(Constant<kIndex>{}), ...);
}
/// body(0), body(1), … body(kTimes - 1) with constant arguments: loops over arrays of registers that are
/// unrolled late stay in memory.
template <int kTimes, typename Body>
[[gnu::always_inline]] inline void repeat(const Body& body) {
  repeat_each(std::make_integer_sequence<int, kTimes>{}, body);
}

/// acc += the sums of four products of unsigned bytes x and signed bytes w. x must be in [0, 127]: then two
/// products sum to at most 2 * 127 * 128 = 32512, and the saturating add of vpmaddubsw never saturates.
inline __m256i dot4(__m256i acc, __m256i x, __m256i w) {
#if defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(acc, x, w);
#else
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
#endif
}

inline __m256i broadcast4(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

inline __m256i load32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store32(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

/// Keeps the compiler from adding in another order: it builds trees of all products first, which takes more
/// registers than there are.
[[gnu::always_inline]] inline void keep_order(__m256i& sum) { asm("" : "+x"(sum)); }

/// R rows x 16 outputs of products at one offset.
template <int R>
inline void block_u8(const int8_t* const* source, const int8_t* w, int32_t quads, int32_t* const* out) {
  __m256i acc[R][2];
  for (int r = 0; r < R; ++r) {
    acc[r][0] = load32(out[r]);
    acc[r][1] = load32(out[r] + 8);
  }
  for (int32_t q = 0; q < quads; ++q, w += 64) {
    const __m256i w0 = load32(w), w1 = load32(w + 32);
    for (int r = 0; r < R; ++r) {
      const __m256i x = broadcast4(source[r] + 4 * q);
      acc[r][0] = dot4(acc[r][0], x, w0);
      acc[r][1] = dot4(acc[r][1], x, w1);
    }
  }
  for (int r = 0; r < R; ++r) {
    store32(out[r], acc[r][0]);
    store32(out[r] + 8, acc[r][1]);
  }
}

}  // namespace
}  // namespace scn
