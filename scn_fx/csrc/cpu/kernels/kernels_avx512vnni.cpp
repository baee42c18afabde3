// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VNNI (Ice Lake, Sapphire Rapids, Zen 4 and onwards).
#if defined(__AVX512VNNI__)
#include "cpu/kernels/vec16_avx512-inl.h"
// after the vectors it is written in
#include "cpu/kernels/walk-inl.h"

namespace scn {
namespace {

/// R rows x 16 * N outputs of int8 products. vpdpbusd multiplies unsigned by signed bytes and does not
/// saturate. Signed features are shifted by 128 to become unsigned; what the shift adds, 128 times the sum of
/// the offset's weights for an output, is tabled in g.offset_sums and taken off again.
template <int R, int N, bool kSigned>
inline void block_int8(const GatherGemm& g, int32_t k, int32_t n, const int8_t* const* source,
                       const int8_t* weight, int32_t* const* sums) {
  __m512i acc[R][N];
  for (int j = 0; j < N; ++j) {
    const __m512i shift =
        kSigned ? _mm512_loadu_si512(g.offset_sums + int64_t(k) * g.out_channels + n + 16 * j) : __m512i{};
    for (int r = 0; r < R; ++r) {
      acc[r][j] = _mm512_loadu_si512(sums[r] + 16 * j);
      if (kSigned) acc[r][j] = _mm512_sub_epi32(acc[r][j], shift);
    }
  }
  const int64_t block = weight_at(g, 0, kOutputBlock);
  for (int32_t c = 0; c < g.in_channels; c += kInputQuad) {
    __m512i w[N];
    for (int j = 0; j < N; ++j) w[j] = _mm512_loadu_si512(weight + j * block + int64_t(c) * kOutputBlock);
    for (int r = 0; r < R; ++r) {
      int32_t four;
      std::memcpy(&four, source[r] + c, 4);
      const __m512i x = _mm512_set1_epi32(kSigned ? int32_t(uint32_t(four) ^ 0x80808080u) : four);
      for (int j = 0; j < N; ++j) acc[r][j] = _mm512_dpbusd_epi32(acc[r][j], x, w[j]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < N; ++j) _mm512_storeu_si512(sums[r] + 16 * j, acc[r][j]);
  }
}

template <int R, int N>
inline void block_float(const GatherGemm& g, const float* const* source, const float* weight,
                        float* const* sums) {
  __m512 acc[R][N];
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < N; ++j) acc[r][j] = _mm512_loadu_ps(sums[r] + 16 * j);
  }
  const int64_t block = weight_at(g, 0, kOutputBlock);
  for (int32_t c = 0; c < g.in_channels; ++c) {
    __m512 w[N];
    for (int j = 0; j < N; ++j) w[j] = _mm512_loadu_ps(weight + j * block + int64_t(c) * kOutputBlock);
    for (int r = 0; r < R; ++r) {
      const __m512 x = _mm512_set1_ps(source[r][c]);
      for (int j = 0; j < N; ++j) acc[r][j] = _mm512_fmadd_ps(x, w[j], acc[r][j]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < N; ++j) _mm512_storeu_ps(sums[r] + 16 * j, acc[r][j]);
  }
}

/// N blocks of 16 outputs and as many rows as leave registers for N weights and a broadcast: R * N + N + 1
/// <= 32.
template <int N, bool kSigned>
struct Int8Block {
  using X = int8_t;
  using W = int8_t;
  using A = int32_t;
  static constexpr int kRows = N == 4 ? 6 : 12, kOutputs = 16 * N;
  template <int R>
  static inline void run(const GatherGemm& g, int32_t k, int32_t n, const X* const* x, const W* weight,
                         A* const* sums) {
    block_int8<R, N, kSigned>(g, k, n, x, weight, sums);
  }
};

template <int N>
struct FloatBlock {
  using X = float;
  using W = float;
  using A = float;
  static constexpr int kRows = N == 4 ? 6 : 12, kOutputs = 16 * N;
  template <int R>
  static inline void run(const GatherGemm& g, int32_t, int32_t, const X* const* x, const W* weight,
                         A* const* sums) {
    block_float<R, N>(g, x, weight, sums);
  }
};

/// Blocks of 64 outputs, then of 32, then of 16.
template <template <int> class Block>
inline void walk_widths(const GatherGemm& g, int64_t begin, int64_t end, void* sums, void* scratch) {
  const TilePairs tile = list_pairs(g.map, begin, end, scratch);
  const int32_t n64 = g.out_channels / 64 * 64, n32 = g.out_channels / 32 * 32;
  if (n64 > 0) walk<Block<4>>(g, tile, sums, 0, n64);
  if (n32 > n64) walk<Block<2>>(g, tile, sums, n64, n32);
  if (g.out_channels > n32) walk<Block<1>>(g, tile, sums, n32, g.out_channels);
}

/// The same from float16 rows.
inline void walk_half_widths(const GatherGemm& g, int64_t begin, int64_t end, void* sums, void* scratch) {
  const TilePairs tile = list_pairs(g.map, begin, end, scratch);
  const int64_t rows = end - begin;
  const int32_t n64 = g.out_channels / 64 * 64, n32 = g.out_channels / 32 * 32;
  if (n64 > 0) walk_half<FloatBlock<4>>(g, tile, rows, scratch, sums, 0, n64);
  if (n32 > n64) walk_half<FloatBlock<2>>(g, tile, rows, scratch, sums, n64, n32);
  if (g.out_channels > n32) walk_half<FloatBlock<1>>(g, tile, rows, scratch, sums, n32, g.out_channels);
}

template <int N>
using SignedBlock = Int8Block<N, true>;
template <int N>
using UnsignedBlock = Int8Block<N, false>;

/// Narrow layers: one row at a time with its sums in registers, since all weights stay in the first-level
/// cache and handling lists of rows would cost more than the products. N blocks of 16 outputs. Two sums an
/// output hide the latency of the products.
template <int N, bool kSigned>
inline void rows_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* sums) {
  const int64_t block = weight_at(g, 0, kOutputBlock), slab = weight_at(g, 1, 0);
  for (int64_t row = begin; row < end; ++row, sums += 16 * N) {
    __m512i even[N], odd[N];
    for (int j = 0; j < N; ++j) even[j] = odd[j] = _mm512_setzero_si512();
    for_each_neighbour(g.map, row, [&](int32_t k, int32_t source_row) {
      const int8_t* source = static_cast<const int8_t*>(g.x) + int64_t(source_row) * g.x_stride;
      const int8_t* weight = static_cast<const int8_t*>(g.weight) + k * slab;
      for (int32_t c = 0; c < g.in_channels; c += kInputQuad, weight += kInputQuad * kOutputBlock) {
        int32_t four;
        std::memcpy(&four, source + c, 4);
        const __m512i x = _mm512_set1_epi32(kSigned ? int32_t(uint32_t(four) ^ 0x80808080u) : four);
        for (int j = 0; j < N; ++j) {
          __m512i& acc = (c / kInputQuad) % 2 ? odd[j] : even[j];
          acc = _mm512_dpbusd_epi32(acc, x, _mm512_loadu_si512(weight + j * block));
        }
      }
      if (kSigned) {
        for (int j = 0; j < N; ++j) {
          even[j] = _mm512_sub_epi32(
              even[j], _mm512_loadu_si512(g.offset_sums + int64_t(k) * g.out_channels + 16 * j));
        }
      }
    });
    for (int j = 0; j < N; ++j) _mm512_storeu_si512(sums + 16 * j, _mm512_add_epi32(even[j], odd[j]));
  }
}

/// The same in float32, for input layers: one chain of fused multiply-adds an output, as the numerics
/// specify.
inline void rows_float(const GatherGemm& g, int64_t begin, int64_t end, float* sums) {
  const int64_t slab = weight_at(g, 1, 0);
  for (int64_t row = begin; row < end; ++row, sums += 16) {
    __m512 acc = _mm512_setzero_ps();
    for_each_neighbour(g.map, row, [&](int32_t k, int32_t source_row) {
      const float* source = static_cast<const float*>(g.x) + int64_t(source_row) * g.x_stride;
      const float* weight = static_cast<const float*>(g.weight) + k * slab;
      for (int32_t c = 0; c < g.in_channels; ++c, weight += kOutputBlock) {
        acc = _mm512_fmadd_ps(_mm512_set1_ps(source[c]), _mm512_loadu_ps(weight), acc);
      }
    });
    _mm512_storeu_ps(sums, acc);
  }
}

template <bool kSigned>
inline void narrow_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* sums) {
  g.out_channels == 16 ? rows_int8<1, kSigned>(g, begin, end, sums)
                       : rows_int8<2, kSigned>(g, begin, end, sums);
}

void rows_any_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* acc, void*) {
  g.x_nonnegative ? narrow_int8<false>(g, begin, end, acc) : narrow_int8<true>(g, begin, end, acc);
}

void rows_any_float(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void*, bool) {
  rows_float(g, begin, end, acc);
}

void gemm_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* acc, void* scratch) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(int32_t));
  if (g.x_nonnegative) {
    walk_widths<UnsignedBlock>(g, begin, end, acc, scratch);
  } else {
    walk_widths<SignedBlock>(g, begin, end, acc, scratch);
  }
}

void gemm_float(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void* scratch, bool) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(float));
  g.x_half ? walk_half_widths(g, begin, end, acc, scratch)
           : walk_widths<FloatBlock>(g, begin, end, acc, scratch);
}

/// Loops of multiply-adds in registers, for the share of the processor's peak that a layer reaches. Return
/// operations performed.
int64_t float_loop(int64_t rounds) {
  __m512 acc[12];
  for (auto& a : acc) a = _mm512_setzero_ps();
  const __m512 x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(0.25f);
  for (int64_t i = 0; i < rounds; ++i) {
    for (auto& a : acc) {
      a = _mm512_fmadd_ps(x, y, a);
      asm volatile("" : "+v"(a));
    }
  }
  return rounds * 12 * 16 * 2;
}

int64_t int8_loop(int64_t rounds) {
  __m512i acc[12];
  for (auto& a : acc) a = _mm512_setzero_si512();
  const __m512i x = _mm512_set1_epi8(1), w = _mm512_set1_epi8(2);
  for (int64_t i = 0; i < rounds; ++i) {
    for (auto& a : acc) {
      a = _mm512_dpbusd_epi32(a, x, w);
      asm volatile("" : "+v"(a));
    }
  }
  return rounds * 12 * 64 * 2;
}

}  // namespace

const Kernels kAvx512VnniKernels = {"avx512vnni",    gemm_int8,       rows_any_int8, gemm_float,
                                    rows_any_float,  add_outer<true>, finish_rows,   convert_from_half,
                                    convert_to_half, float_loop,      int8_loop};

}  // namespace scn
#endif
