// SPDX-License-Identifier: Apache-2.0
// Narrow layers on AVX-512: a few rows at a time with their sums in registers, since all weights stay in the
// first-level cache and handling lists of rows would cost more than the products. Rows that follow each other
// have most of their offsets in common, and share the weights that are loaded. Which of them has an offset
// that another has could not be predicted: arithmetic asks, not a branch.
#pragma once

#include "cpu/kernels/kernels-inl.h"
#include "cpu/kernels/products_avx512-inl.h"

namespace scn {
namespace {

/// What a row reads at the offsets that it does not have.
alignas(64) const int8_t kZeros[32] = {};

/// Two rows and N blocks of 16 outputs. kQuads: the quads of input channels, or 0 for any number. Products
/// with operands from the cache take 1.25 cycles on Zen 4, those from registers 1. Signed features: see
/// block_int8.
template <int N, int kQuads, bool kSigned>
inline void rows_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* sums) {
  constexpr int32_t kQuad = kInputQuad * kOutputBlock;  // bytes of weights
  const int32_t words = g.map.mask_words, halves = (g.map.offsets + 31) / 32;
  const int32_t quads = kQuads > 0 ? kQuads : g.in_channels / kInputQuad;
  const int64_t block = weight_at(g, 0, kOutputBlock), slab = int64_t(quads) * kQuad;
  const uintptr_t zeros = reinterpret_cast<uintptr_t>(kZeros), x = reinterpret_cast<uintptr_t>(g.x) - zeros;
  for (int64_t row = begin; row < end; row += 2, sums += 2 * 16 * N) {
    const bool two = row + 1 < end;
    const int32_t* input[2] = {g.map.inputs + g.map.first[row], g.map.inputs + g.map.first[row + two]};
    Sums acc[2][2][N];  // two chains an output, which hide the latency of the products
    // not by an initialiser: GCC fills memory with that, and loads it
    unrolled<4 * N>([&](auto i)
                        __attribute__((always_inline)) { acc[i / (2 * N)][i / N % 2][i % N] = Sums{}; });
    for (int32_t half = 0; half < halves; ++half) {
      const uint64_t* const of_row = g.map.masks + row * words + half / 2;
      const int32_t shift = half % 2 * 32;
      // half a word of either row in one register, since there are few
      const uint64_t both = uint32_t(of_row[0] >> shift) | (two ? of_row[words] >> shift << 32 : 0);
      const int8_t* const half_weight = static_cast<const int8_t*>(g.weight) + half * 32 * slab;
      for (uint32_t either = uint32_t(both | both >> 32); either; either &= either - 1) {
        const int32_t bit = __builtin_ctz(either);
        const uint64_t from_bit = both >> bit;
        const int8_t* source[2];
        unrolled<2>([&](auto r) __attribute__((always_inline)) {
          const uintptr_t there = from_bit >> (32 * r) & 1;
          // of a row without it, the next entry is read for nothing
          const uintptr_t at = x + uintptr_t(*input[r] * g.x_stride);
          source[r] = reinterpret_cast<const int8_t*>(zeros + (at & (0 - there)));
          input[r] += there;
        });
        const int8_t* weight[N];
        unrolled<N>([&](auto j)
                        __attribute__((always_inline)) { weight[j] = half_weight + bit * slab + j * block; });
        // one closure, called as it is: GCC keeps what a closure within another refers to on the stack
        const auto quad = [&](auto q) __attribute__((always_inline)) {
          constexpr int chain = decltype(q)::value % 2;
          const Sums first = four_bytes<kSigned>(source[0] + q * kInputQuad);
          const Sums second = four_bytes<kSigned>(source[1] + q * kInputQuad);
          unrolled<N>([&](auto j) __attribute__((always_inline)) {
            const Sums w = load_bytes(weight[j] + q * kQuad);
            add_products(acc[chain][0][j], first, w);
            add_products(acc[chain][1][j], second, w);
          });
        };
        if constexpr (kQuads > 0) {
          unrolled<kQuads>(quad);
        } else {
          for (int32_t i = 0; i < quads; ++i) {
            unrolled<1>(quad);
            unrolled<2>([&](auto r) __attribute__((always_inline)) { source[r] += kInputQuad; });
            unrolled<N>([&](auto j) __attribute__((always_inline)) { weight[j] += kQuad; });
          }
        }
        if constexpr (kSigned) {
          unrolled<N>([&](auto j) __attribute__((always_inline)) {
            const Sums shift = load_sums(g.offset_sums + (half * 32 + bit) * g.out_channels + 16 * j);
            unrolled<2>([&](auto r) __attribute__((always_inline)) { acc[0][r][j] -= shift; });
          });
        }
      }
    }
    unrolled<N>([&](auto j) __attribute__((always_inline)) {
      store_sums(sums + 16 * j, acc[0][0][j] + acc[1][0][j]);
      if (two) store_sums(sums + 16 * (N + j), acc[0][1][j] + acc[1][1][j]);
    });
  }
}

template <int N, bool kSigned>
inline void rows_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* sums) {
  if (g.in_channels == 32) return rows_int8<N, 8, kSigned>(g, begin, end, sums);
  if (g.in_channels == 16) return rows_int8<N, 4, kSigned>(g, begin, end, sums);
  rows_int8<N, 0, kSigned>(g, begin, end, sums);
}

/// Up to 32 input and output channels.
template <bool kSigned>
inline void rows_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* sums) {
  g.out_channels == 16 ? rows_int8<1, kSigned>(g, begin, end, sums)
                       : rows_int8<2, kSigned>(g, begin, end, sums);
}

/// Input layers, R rows and N blocks of 16 outputs at a time: one chain of fused multiply-adds an output, as
/// the numerics specify, and none for an offset that a row does not have.
template <int R, int N>
inline void rows_float(const GatherGemm& g, int64_t begin, int64_t end, float* sums) {
  const int64_t block = weight_at(g, 0, kOutputBlock), slab = weight_at(g, 1, 0);
  const int32_t words = g.map.mask_words, channels = g.in_channels;
  for (int64_t row = begin; row < end; row += R, sums += 16 * N * R) {
    const int32_t* input[R];
    __m512 acc[R][N];
    unrolled<R>([&](auto r) __attribute__((always_inline)) {
      input[r] = g.map.inputs + g.map.first[row + r < end ? row + r : row];
      unrolled<N>([&](auto j) __attribute__((always_inline)) { acc[r][j] = _mm512_setzero_ps(); });
    });
    for (int32_t word = 0; word < words; ++word) {
      uint64_t mask[R], any = 0;
      unrolled<R>([&](auto r) __attribute__((always_inline)) {
        mask[r] = row + r < end ? g.map.masks[(row + r) * words + word] : 0;
        any |= mask[r];
      });
      for (; any; any &= any - 1) {
        const int32_t bit = __builtin_ctzll(any);
        const float* weight = static_cast<const float*>(g.weight) + (word * 64 + bit) * slab;
        const float* x[R];
        __mmask16 there[R];
        unrolled<R>([&](auto r) __attribute__((always_inline)) {
          const int64_t present = int64_t(mask[r] >> bit & 1);
          // row 0 where it has none
          x[r] = static_cast<const float*>(g.x) + (*input[r] & -present) * g.x_stride;
          there[r] = __mmask16(-present);
          input[r] += present;
        });
        for (int32_t c = 0; c < channels; ++c, weight += kOutputBlock) {
          __m512 w[N];
          unrolled<N>([&](auto j)
                          __attribute__((always_inline)) { w[j] = _mm512_loadu_ps(weight + j * block); });
          unrolled<R>([&](auto r) __attribute__((always_inline)) {
            const __m512 value = _mm512_set1_ps(x[r][c]);
            unrolled<N>([&](auto j) __attribute__((always_inline)) {
              acc[r][j] = _mm512_mask3_fmadd_ps(value, w[j], acc[r][j], there[r]);
            });
          });
        }
      }
    }
    unrolled<R>([&](auto r) __attribute__((always_inline)) {
      unrolled<N>([&](auto j) __attribute__((always_inline)) {
        if (row + r < end) _mm512_storeu_ps(sums + 16 * (r * N + j), acc[r][j]);
      });
    });
  }
}

}  // namespace
}  // namespace scn
