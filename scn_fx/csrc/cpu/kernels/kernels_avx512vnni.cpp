// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VNNI (Ice Lake, Sapphire Rapids, Zen 4 and onwards).
#if defined(__AVX512VNNI__)
#include "cpu/kernels/vec16_avx512-inl.h"
// after the vectors that they are written in
#include "cpu/kernels/products_avx512-inl.h"
#include "cpu/kernels/rows_avx512-inl.h"
#include "cpu/kernels/runs-inl.h"

namespace scn {
namespace {

/// R rows x 16 * N outputs of int8 products. vpdpbusd multiplies unsigned by signed bytes and does not
/// saturate. Signed features are shifted by 128 to become unsigned; what the shift adds, 128 times the sum of
/// the offset's weights for an output, is tabled in g.offset_sums and taken off again.
template <int R, int N, int kRows, bool kSigned>
[[gnu::always_inline]] inline void block_int8(const GatherGemm& g, const Pattern& pattern, int32_t n,
                                              const int8_t* const* source, const int8_t* weight,
                                              int32_t* const* sums) {
  Sums acc[R][N];
  unrolled<R>([&](auto r) __attribute__((always_inline)) {
    unrolled<N>([&](auto j) __attribute__((always_inline)) { acc[r][j] = load_sums(sums[r] + 16 * j); });
  });
  const int64_t block = weight_at(g, 0, kOutputBlock), slab = weight_at(g, 1, 0);
  for (int32_t i = 0; i < pattern.count; ++i, source += kRows) {
    const int32_t k = pattern.offsets[i];
    if constexpr (kSigned) {
      unrolled<N>([&](auto j) __attribute__((always_inline)) {
        const Sums shift = load_sums(g.offset_sums + int64_t(k) * g.out_channels + n + 16 * j);
        unrolled<R>([&](auto r) __attribute__((always_inline)) { acc[r][j] -= shift; });
      });
    }
    const int8_t* const at = weight + k * slab;
    const int8_t* x[R];
    unrolled<R>([&](auto r) __attribute__((always_inline)) { x[r] = source[r]; });
    for (int32_t c = 0; c < g.in_channels; c += kInputQuad) {
      Sums w[N];
      unrolled<N>([&](auto j) __attribute__((always_inline)) {
        w[j] = load_bytes(at + j * block + int64_t(c) * kOutputBlock);
      });
      unrolled<R>([&](auto r) __attribute__((always_inline)) {
        const Sums four = four_bytes<kSigned>(x[r] + c);
        unrolled<N>([&](auto j) __attribute__((always_inline)) { add_products(acc[r][j], four, w[j]); });
      });
    }
  }
  unrolled<R>([&](auto r) __attribute__((always_inline)) {
    unrolled<N>([&](auto j) __attribute__((always_inline)) { store_sums(sums[r] + 16 * j, acc[r][j]); });
  });
}

template <int R, int N, int kRows>
[[gnu::always_inline]] inline void block_float(const GatherGemm& g, const Pattern& pattern,
                                               const float* const* source, const float* weight,
                                               float* const* sums) {
  __m512 acc[R][N];
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < N; ++j) acc[r][j] = _mm512_loadu_ps(sums[r] + 16 * j);
  }
  const int64_t block = weight_at(g, 0, kOutputBlock), slab = weight_at(g, 1, 0);
  for (int32_t i = 0; i < pattern.count; ++i, source += kRows) {
    const float* const at = weight + pattern.offsets[i] * slab;
    const float* x[R];
    for (int r = 0; r < R; ++r) x[r] = source[r];
    for (int32_t c = 0; c < g.in_channels; ++c) {
      __m512 w[N];
      for (int j = 0; j < N; ++j) w[j] = _mm512_loadu_ps(at + j * block + int64_t(c) * kOutputBlock);
      for (int r = 0; r < R; ++r) {
        const __m512 value = _mm512_set1_ps(x[r][c]);
        for (int j = 0; j < N; ++j) acc[r][j] = _mm512_fmadd_ps(value, w[j], acc[r][j]);
      }
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
  static constexpr int kRows = N == 4 ? 6 : 8, kOutputs = 16 * N;
  template <int R>
  static inline void run(const GatherGemm& g, const Pattern& p, int32_t n, const X* const* x, const W* weight,
                         A* const* sums) {
    block_int8<R, N, kRows, kSigned>(g, p, n, x, weight, sums);
  }
};

template <int N>
struct FloatBlock {
  using X = float;
  using W = float;
  using A = float;
  static constexpr int kRows = N == 4 ? 6 : 8, kOutputs = 16 * N;
  template <int R>
  static inline void run(const GatherGemm& g, const Pattern& p, int32_t, const X* const* x, const W* weight,
                         A* const* sums) {
    block_float<R, N, kRows>(g, p, x, weight, sums);
  }
};

/// Blocks of 64 outputs, then of 32, then of 16.
template <template <int> class Block, typename Rows>
inline void walk_widths(const GatherGemm& g, const TileRuns& tile, const Rows& rows, void* sums) {
  const int32_t n64 = g.out_channels / 64 * 64, n32 = g.out_channels / 32 * 32;
  if (n64 > 0) walk_runs<Block<4>>(g, tile, rows, sums, 0, n64);
  if (n32 > n64) walk_runs<Block<2>>(g, tile, rows, sums, n64, n32);
  if (g.out_channels > n32) walk_runs<Block<1>>(g, tile, rows, sums, n32, g.out_channels);
}

template <int N>
using SignedBlock = Int8Block<N, true>;
template <int N>
using UnsignedBlock = Int8Block<N, false>;

void rows_any_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* acc, void*) {
  g.x_nonnegative ? rows_int8<false>(g, begin, end, acc) : rows_int8<true>(g, begin, end, acc);
}

void rows_any_float(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void*, bool) {
  g.out_channels == 16 ? rows_float<4, 1>(g, begin, end, acc) : rows_float<4, 2>(g, begin, end, acc);
}

void gemm_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* acc, void* scratch) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(int32_t));
  const TileRuns tile = list_runs(g.map, begin, end, scratch);
  const StoredRows<int8_t> rows{static_cast<const int8_t*>(g.x), g.x_stride};
  g.x_nonnegative ? walk_widths<UnsignedBlock>(g, tile, rows, acc)
                  : walk_widths<SignedBlock>(g, tile, rows, acc);
}

void gemm_float(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void* scratch, bool) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(float));
  const TileRuns tile = list_runs(g.map, begin, end, scratch);
  if (g.x_half) {
    walk_widths<FloatBlock>(g, tile, widened_rows(g, end - begin, scratch), acc);
  } else {
    walk_widths<FloatBlock>(g, tile, StoredRows<float>{static_cast<const float*>(g.x), g.x_stride}, acc);
  }
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
  Sums acc[12] = {};
  const Sums x = Sums(_mm512_set1_epi8(1)), w = Sums(_mm512_set1_epi8(2));
  for (int64_t i = 0; i < rounds; ++i) {
    unrolled<12>([&](auto k) __attribute__((always_inline)) { add_products(acc[k], x, w); });
  }
  return rounds * 12 * 64 * 2;
}

}  // namespace

const Kernels kAvx512VnniKernels = {"avx512vnni",    gemm_int8,       rows_any_int8, gemm_float,
                                    rows_any_float,  add_outer<true>, finish_rows,   convert_from_half,
                                    convert_to_half, float_loop,      int8_loop};

}  // namespace scn
#endif
