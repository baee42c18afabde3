// SPDX-License-Identifier: Apache-2.0
// int8 products for AVX2 without VNNI. Widening every sum of two products from 16 to 32 bits costs as many
// multiplications as the products themselves, so sums of several quads are added in 16 bits first, where the
// weights prove that they fit (plan_int8_groups).
#pragma once

#include "cpu/kernels/bytes_avx2-inl.h"
#include "cpu/kernels/kernels.h"

namespace scn {
namespace {

#if !defined(__AVXVNNI__)
/// R rows x 16 outputs at one offset, kQuads quads of input channels in a 16-bit sum that starts at `shifts`,
/// [quads / kQuads, 32], or with those of the first quad.
template <int R, int kQuads, bool kStartShifted = false>
inline void block_grouped(const int8_t* const* source, const int8_t* w, int32_t quads, int32_t* const* out,
                          [[maybe_unused]] const int16_t* shifts = nullptr) {
  // Rows whose 32-bit sums have registers. From four quads on, these sums are touched so rarely that they may
  // stay in the cache, which leaves registers for more rows. With two quads and four rows, compilers that may
  // choose put other sums on the stack; with two rows kept, Clang 14 does so with weights.
  constexpr int kKept = kQuads >= 4 ? 0 : R < 4 ? R : 1;
  const __m256i ones = _mm256_set1_epi16(1);
  [[maybe_unused]] __m256i acc[R][2];
  repeat<kKept>([&](auto r) __attribute__((always_inline)) {
    acc[r][0] = load32(out[r]);
    acc[r][1] = load32(out[r] + 8);
  });
  const int8_t* const end = w + 64 * int64_t(quads);
  for (int64_t q = 0; w < end; q += kQuads, w += 64 * kQuads) {
    __m256i sum[R][2];
    if constexpr (kStartShifted) {
      repeat<R>([&](auto r) __attribute__((always_inline)) {
        sum[r][0] = load32(shifts);
        sum[r][1] = load32(shifts + 16);
      });
      shifts += 32;
    }
    repeat<kQuads>([&](auto i) __attribute__((always_inline)) {
      const __m256i w0 = load32(w + 64 * i), w1 = load32(w + 64 * i + 32);
      repeat<R>([&](auto r) __attribute__((always_inline)) {
        const __m256i x = broadcast4(source[r] + 4 * (q + i));
        const __m256i low = _mm256_maddubs_epi16(x, w0), high = _mm256_maddubs_epi16(x, w1);
        const bool first = i == 0 && !kStartShifted;
        sum[r][0] = first ? low : _mm256_add_epi16(sum[r][0], low);
        sum[r][1] = first ? high : _mm256_add_epi16(sum[r][1], high);
        keep_order(sum[r][0]);
        keep_order(sum[r][1]);
      });
    });
    repeat<R>([&](auto r) __attribute__((always_inline)) {
      repeat<2>([&](auto h) __attribute__((always_inline)) {
        const __m256i wide = _mm256_madd_epi16(sum[r][h], ones);
        if constexpr (r < kKept) {
          acc[r][h] = _mm256_add_epi32(acc[r][h], wide);
          keep_order(acc[r][h]);
        } else {
          store32(out[r] + 8 * h, _mm256_add_epi32(load32(out[r] + 8 * h), wide));
        }
      });
    });
  }
  repeat<kKept>([&](auto r) __attribute__((always_inline)) {
    store32(out[r], acc[r][0]);
    store32(out[r] + 8, acc[r][1]);
  });
}

/// One row and N blocks of 16 outputs, `block` bytes of weights apart, at one offset: sums[2 * N] of 32 bits,
/// four quads in a 16-bit sum.
template <int N>
[[gnu::always_inline]] inline void row_grouped(const int8_t* source, const int8_t* w, int64_t block,
                                               int32_t channels, __m256i* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int32_t c = 0; c < channels; c += 4 * kInputQuad, w += 4 * 64) {
    __m256i sum[2 * N];
    repeat<4>([&](auto i) __attribute__((always_inline)) {
      const __m256i x = broadcast4(source + c + kInputQuad * i);
      repeat<2 * N>([&](auto j) __attribute__((always_inline)) {
        const __m256i products = _mm256_maddubs_epi16(x, load32(w + 64 * i + j / 2 * block + j % 2 * 32));
        sum[j] = i == 0 ? products : _mm256_add_epi16(sum[j], products);
        keep_order(sum[j]);
      });
    });
    repeat<2 * N>([&](auto j) __attribute__((always_inline)) {
      sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(sum[j], ones));
    });
  }
}
#endif

/// R rows x 16 outputs at one offset, with as many quads in a 16-bit sum as the plan allows. VNNI sums in 32
/// bits anyway.
template <int R>
inline void block_planned(const int8_t* const* source, const int8_t* w, int32_t quads, int32_t* const* out,
                          [[maybe_unused]] int32_t group, [[maybe_unused]] const int16_t* shifts) {
#if !defined(__AVXVNNI__)
  if (group == 8) return block_grouped<R, 8>(source, w, quads, out);
  if (group == 4) return block_grouped<R, 4>(source, w, quads, out);
  if (group == (kShiftedGroup | kShifted))
    return block_grouped<R, kShiftedGroup, true>(source, w, quads, out, shifts);
  if (group == 2) return block_grouped<R, 2>(source, w, quads, out);
#endif
  block_u8<R>(source, w, quads, out);
}

}  // namespace
}  // namespace scn
