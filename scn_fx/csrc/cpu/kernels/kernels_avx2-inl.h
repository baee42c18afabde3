// SPDX-License-Identifier: Apache-2.0
// Kernels for 256-bit registers. kernels_avx2.cpp and kernels_avxvnni.cpp compile them, with and without the
// instruction that sums four byte products at once.
#pragma once

#include "cpu/kernels/vec16_avx2-inl.h"
// after the vectors it is written in
#include "cpu/kernels/grouped_avx2-inl.h"
#include "cpu/kernels/walk-inl.h"

namespace scn {
namespace {

/// R rows x 16 outputs of products of signed x at one offset: weights and x widened to 16 bits, whose
/// products cannot saturate.
template <int R>
inline void block_s8(const int8_t* const* source, const int8_t* w, int32_t quads, int32_t* const* out) {
  __m256i acc[R][2];  // lanes hold partial sums of one output each: pairs (c0, c1) and (c2, c3) are added at
                      // the end
  __m256i low[R][2];
  repeat<R>([&](auto r) __attribute__((always_inline)) {
    repeat<2>([&](auto h) __attribute__((always_inline)) { acc[r][h] = low[r][h] = _mm256_setzero_si256(); });
  });
  for (int32_t q = 0; q < quads; ++q, w += 64) {
    __m256i wide[4];  // 4 outputs x 4 channels each
    repeat<4>([&](auto i) __attribute__((always_inline)) {
      wide[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * i)));
    });
    repeat<R>([&](auto r) __attribute__((always_inline)) {
      int32_t four;
      std::memcpy(&four, source[r] + 4 * q, 4);
      const __m256i x = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
      low[r][0] = _mm256_add_epi32(low[r][0], _mm256_madd_epi16(x, wide[0]));
      acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(x, wide[1]));
      low[r][1] = _mm256_add_epi32(low[r][1], _mm256_madd_epi16(x, wide[2]));
      acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(x, wide[3]));
      if constexpr (R > 1) {  // GCC 12 copies each sum once a round, and has no registers left for one
        repeat<2>([&](auto h) __attribute__((always_inline)) {
          keep_order(low[r][h]);
          keep_order(acc[r][h]);
        });
      }
    });
  }
  repeat<R>([&](auto r) __attribute__((always_inline)) {
    repeat<2>([&](auto h) __attribute__((always_inline)) {
      // hadd gives outputs 0 1 4 5 | 2 3 6 7 of the eight: put the pairs back in order
      const __m256i sums =
          _mm256_permute4x64_epi64(_mm256_hadd_epi32(low[r][h], acc[r][h]), _MM_SHUFFLE(3, 1, 2, 0));
      store32(out[r] + 8 * h, _mm256_add_epi32(load32(out[r] + 8 * h), sums));
    });
  });
}

template <int R>
inline void block_float(const float* const* source, const float* w, int32_t channels, float* const* out) {
  __m256 acc[R][2];
  for (int r = 0; r < R; ++r) {
    acc[r][0] = _mm256_loadu_ps(out[r]);
    acc[r][1] = _mm256_loadu_ps(out[r] + 8);
  }
  for (int32_t c = 0; c < channels; ++c, w += 16) {
    const __m256 w0 = _mm256_loadu_ps(w), w1 = _mm256_loadu_ps(w + 8);
    for (int r = 0; r < R; ++r) {
      const __m256 x = _mm256_broadcast_ss(source[r] + c);
      acc[r][0] = _mm256_fmadd_ps(x, w0, acc[r][0]);
      acc[r][1] = _mm256_fmadd_ps(x, w1, acc[r][1]);
    }
  }
  for (int r = 0; r < R; ++r) {
    _mm256_storeu_ps(out[r], acc[r][0]);
    _mm256_storeu_ps(out[r] + 8, acc[r][1]);
  }
}

/// The offsets, at most 64, at which four quads may be summed in 16 bits for all outputs. Shifts gain nothing
/// here: with their loads, 16 and 32 channels took 10 % longer than with 32-bit sums.
inline uint64_t grouped_offsets([[maybe_unused]] const GatherGemm& g) {
  uint64_t offsets = 0;
#if !defined(__AVXVNNI__)  // which sums in 32 bits anyway
  for (int32_t k = 0; k < g.map.offsets; ++k) {
    bool all = true;
    for (int32_t n = 0; n < g.out_channels; n += kOutputBlock)
      all = all && (group_at(g, k, n) == 4 || group_at(g, k, n) == 8);
    offsets |= uint64_t(all) << k;
  }
#endif
  return offsets;
}

/// Narrow layers of at most 64 offsets: one row at a time with its sums in registers, since all weights stay
/// in the first-level cache and handling lists of rows would cost more than the products. N blocks of 16
/// outputs. Offsets where products are summed in 16 bits and others have loops of their own: whether one is
/// of the first kind could not be predicted.
template <int N>
inline void rows_u8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* sums) {
  const int64_t block = weight_at(g, 0, kOutputBlock), slab = weight_at(g, 1, 0);
  const uint64_t grouped = grouped_offsets(g);
  for (int64_t row = begin; row < end; ++row, sums += 16 * N) {
    __m256i acc[2 * N];
    for (int j = 0; j < 2 * N; ++j) acc[j] = _mm256_setzero_si256();
    const uint64_t mask = g.map.masks[row];
    const int32_t* const inputs = g.map.inputs + g.map.first[row];
    // of the lowest offset in `rest`
    const auto source_of = [&](uint64_t rest) {
      const int32_t input = inputs[__builtin_popcountll(mask & ((rest & (0 - rest)) - 1))];
      return static_cast<const int8_t*>(g.x) + int64_t(input) * g.x_stride;
    };
    const auto weight_of = [&](uint64_t rest) {
      return static_cast<const int8_t*>(g.weight) + __builtin_ctzll(rest) * slab;
    };
#if !defined(__AVXVNNI__)
    for (uint64_t rest = mask & grouped; rest; rest &= rest - 1) {
      row_grouped<N>(source_of(rest), weight_of(rest), block, g.in_channels, acc);
    }
#endif
    for (uint64_t rest = mask & ~grouped; rest; rest &= rest - 1) {
      const int8_t* source = source_of(rest);
      const int8_t* weight = weight_of(rest);
      for (int32_t c = 0; c < g.in_channels; c += kInputQuad, weight += kInputQuad * kOutputBlock) {
        const __m256i x = broadcast4(source + c);
        for (int j = 0; j < N; ++j) {
          acc[2 * j] = dot4(acc[2 * j], x, load32(weight + j * block));
          acc[2 * j + 1] = dot4(acc[2 * j + 1], x, load32(weight + j * block + 32));
        }
      }
    }
    for (int j = 0; j < 2 * N; ++j) store32(sums + 8 * j, acc[j]);
  }
}

/// The same in float32, for input layers.
inline void rows_float(const GatherGemm& g, int64_t begin, int64_t end, float* sums) {
  const int64_t slab = weight_at(g, 1, 0);
  for (int64_t row = begin; row < end; ++row, sums += 16) {
    __m256 lo = _mm256_setzero_ps(), hi = _mm256_setzero_ps();
    for_each_neighbour(g.map, row, [&](int32_t k, int32_t source_row) {
      const float* source = static_cast<const float*>(g.x) + int64_t(source_row) * g.x_stride;
      const float* weight = static_cast<const float*>(g.weight) + k * slab;
      for (int32_t c = 0; c < g.in_channels; ++c, weight += kOutputBlock) {
        const __m256 x = _mm256_broadcast_ss(source + c);
        lo = _mm256_fmadd_ps(x, _mm256_loadu_ps(weight), lo);
        hi = _mm256_fmadd_ps(x, _mm256_loadu_ps(weight + 8), hi);
      }
    });
    _mm256_storeu_ps(sums, lo);
    _mm256_storeu_ps(sums + 8, hi);
  }
}

struct UnsignedBlock {
  using X = int8_t;
  using W = int8_t;
  using A = int32_t;
  // 4 rows x 16 outputs: 8 accumulators, and room for weights, a broadcast and constants
  static constexpr int kRows = 4, kOutputs = 16;
  template <int R>
  static inline void run(const GatherGemm& g, int32_t k, int32_t n, const X* const* x, const W* weight,
                         A* const* sums) {
    block_planned<R>(x, weight, g.in_channels / kInputQuad, sums, group_at(g, k, n), shifts_at(g, k, n));
  }
};

struct SignedBlock {
  using X = int8_t;
  using W = int8_t;
  using A = int32_t;
  static constexpr int kRows = 2, kOutputs = 16;
  template <int R>
  static inline void run(const GatherGemm& g, int32_t, int32_t, const X* const* x, const W* weight,
                         A* const* sums) {
    block_s8<R>(x, weight, g.in_channels / kInputQuad, sums);
  }
};

struct FloatBlock {
  using X = float;
  using W = float;
  using A = float;
  static constexpr int kRows = 6, kOutputs = 16;
  template <int R>
  static inline void run(const GatherGemm& g, int32_t, int32_t, const X* const* x, const W* weight,
                         A* const* sums) {
    block_float<R>(x, weight, g.in_channels, sums);
  }
};

/// Of features in [0, 127], up to 64 offsets.
void rows_any_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* acc, void*) {
  g.out_channels == 16 ? rows_u8<1>(g, begin, end, acc) : rows_u8<2>(g, begin, end, acc);
}

void rows_any_float(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void*, bool) {
  rows_float(g, begin, end, acc);
}

void gemm_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* acc, void* scratch) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(int32_t));
  const TilePairs tile = list_pairs(g.map, begin, end, scratch);
  g.x_nonnegative ? walk<UnsignedBlock>(g, tile, acc, 0, g.out_channels)
                  : walk<SignedBlock>(g, tile, acc, 0, g.out_channels);
}

void gemm_float(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void* scratch, bool) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(float));
  const TilePairs tile = list_pairs(g.map, begin, end, scratch);
  g.x_half ? walk_half<FloatBlock>(g, tile, end - begin, scratch, acc, 0, g.out_channels)
           : walk<FloatBlock>(g, tile, acc, 0, g.out_channels);
}

/// Loops of multiply-adds, for the share of the processor's peak that a layer reaches. Return operations
/// performed.
int64_t float_loop(int64_t rounds) {
  __m256 acc[12];
  for (auto& a : acc) a = _mm256_setzero_ps();
  const __m256 x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(0.25f);
  for (int64_t i = 0; i < rounds; ++i) {
    for (auto& a : acc) {
      a = _mm256_fmadd_ps(x, y, a);
      asm volatile("" : "+x"(a));
    }
  }
  return rounds * 12 * 8 * 2;
}

int64_t int8_loop(int64_t rounds) {
  // A small dense product with its operands in cache. From registers alone the three instructions of a
  // product get in each other's way, and layers would seem to beat the processor.
  constexpr int32_t kRows = 48, kChannels = 128;
  static const int8_t weight[kChannels * kChannels] = {}, x[kRows * kChannels] = {};
  uint64_t masks[kRows];
  int64_t first[kRows];
  int32_t inputs[kRows + kMapPadding], sums[kRows * kChannels];
  Pair scratch[kRows + 16];
  for (int32_t r = 0; r < kRows; ++r) {
    masks[r] = 1;
    first[r] = inputs[r] = r;
  }
  uint8_t groups[kChannels / kOutputBlock];
  std::memset(groups, kMostGroup, sizeof(groups));
  const GatherGemm g{{masks, first, inputs, 1, 1},
                     x,
                     kChannels,
                     kChannels,
                     weight,
                     kChannels,
                     true,
                     nullptr,
                     groups,
                     nullptr,
                     false};
  const int64_t calls = rounds / 1024 + 1;
  for (int64_t i = 0; i < calls; ++i) {
    gemm_int8(g, 0, kRows, sums, scratch);
    asm volatile("" : : "r"(sums) : "memory");
  }
  return calls * kRows * kChannels * kChannels * 2;
}

}  // namespace
}  // namespace scn
