// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VNNI (Ice Lake, Sapphire Rapids, Zen 4 and onwards).
#if defined(__AVX512VNNI__)
#include <type_traits>

#include "cpu/kernels/vec16_avx512-inl.h"
// after the vectors it is written in
#include "cpu/kernels/walk-inl.h"

namespace scn {
namespace {

/// Sixteen sums. GCC 12 keeps an array of __m512i, whose lanes are of 64 bits, on the stack where the
/// intrinsics for bytes see it as lanes of 32: each product is then loaded and stored.
using Sums = int32_t __attribute__((vector_size(64)));

inline Sums load_sums(const int32_t* p) { return Sums(_mm512_loadu_si512(p)); }
inline void store_sums(int32_t* p, Sums v) { _mm512_storeu_si512(p, __m512i(v)); }
inline Sums load_bytes(const int8_t* p) { return Sums(_mm512_loadu_si512(p)); }

/// Four unsigned bytes of a row, for each sum; signed ones are shifted by 128. In its place between products:
/// GCC would fetch those of all rows first, and have no registers left for them.
template <bool kSigned>
inline Sums four_bytes(const int8_t* p) {
  Sums x;
  if constexpr (kSigned) {
    uint32_t four;
    std::memcpy(&four, p, 4);
    asm volatile("vpbroadcastd %1, %0" : "=v"(x) : "r"(four ^ 0x80808080u));
  } else {
    struct Four {
      int8_t bytes[4];
    };
    asm volatile("vpbroadcastd %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const Four*>(p)));
  }
  return x;
}

/// f(0), f(1), ... f(kCount - 1), each of its own constant: indices of arrays that GCC is to keep in
/// registers.
template <int kCount, typename F>
[[gnu::always_inline]] inline void unrolled(const F& f) {
  if constexpr (kCount > 0) {
    unrolled<kCount - 1>(f);
    f(std::integral_constant<int, kCount - 1>{});
  }
}

/// Adds the products of four unsigned and four signed bytes to each sum, without saturation.
inline void add_products(Sums& sums, Sums x, Sums w) {
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(x), "v"(w));
}

/// R rows x 16 * N outputs of int8 products. vpdpbusd multiplies unsigned by signed bytes and does not
/// saturate. Signed features are shifted by 128 to become unsigned; what the shift adds, 128 times the sum of
/// the offset's weights for an output, is tabled in g.offset_sums and taken off again.
template <int R, int N, bool kSigned>
inline void block_int8(const GatherGemm& g, int32_t k, int32_t n, const int8_t* const* source,
                       const int8_t* weight, int32_t* const* sums) {
  Sums acc[R][N];
  unrolled<R>([&](auto r) __attribute__((always_inline)) {
    unrolled<N>([&](auto j) __attribute__((always_inline)) { acc[r][j] = load_sums(sums[r] + 16 * j); });
  });
  if constexpr (kSigned) {
    unrolled<N>([&](auto j) __attribute__((always_inline)) {
      const Sums shift = load_sums(g.offset_sums + int64_t(k) * g.out_channels + n + 16 * j);
      unrolled<R>([&](auto r) __attribute__((always_inline)) { acc[r][j] -= shift; });
    });
  }
  const int64_t block = weight_at(g, 0, kOutputBlock);
  for (int32_t c = 0; c < g.in_channels; c += kInputQuad) {
    Sums w[N];
    unrolled<N>([&](auto j) __attribute__((always_inline)) {
      w[j] = load_bytes(weight + j * block + int64_t(c) * kOutputBlock);
    });
    unrolled<R>([&](auto r) __attribute__((always_inline)) {
      const Sums x = four_bytes<kSigned>(source[r] + c);
      unrolled<N>([&](auto j) __attribute__((always_inline)) { add_products(acc[r][j], x, w[j]); });
    });
  }
  unrolled<R>([&](auto r) __attribute__((always_inline)) {
    unrolled<N>([&](auto j) __attribute__((always_inline)) { store_sums(sums[r] + 16 * j, acc[r][j]); });
  });
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
/// cache and handling lists of rows would cost more than the products. N blocks of 16 outputs. Several
/// sums an output hide the latency of the products.
template <int N, bool kSigned>
inline void rows_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* sums) {
  const int64_t block = weight_at(g, 0, kOutputBlock), slab = weight_at(g, 1, 0);
  const int32_t channels = g.in_channels;
  constexpr int kChains = N == 1 ? 4 : 2;
  constexpr int32_t kQuad = kInputQuad * kOutputBlock;  // bytes of weights
  for (int64_t row = begin; row < end; ++row, sums += 16 * N) {
    Sums acc[kChains][N] = {};
    for_each_neighbour(g.map, row, [&](int32_t k, int32_t source_row) __attribute__((always_inline)) {
      const int8_t* source = static_cast<const int8_t*>(g.x) + int64_t(source_row) * g.x_stride;
      const int8_t* weight = static_cast<const int8_t*>(g.weight) + k * slab;
      const int8_t* const end_of_row = source + channels;
      for (; source + kChains * kInputQuad <= end_of_row; source += kChains * kInputQuad) {
        unrolled<kChains>([&](auto i) __attribute__((always_inline)) {
          const Sums x = four_bytes<kSigned>(source + i * kInputQuad);
          unrolled<N>([&](auto j) __attribute__((always_inline)) {
            add_products(acc[i][j], x, load_bytes(weight + i * kQuad + j * block));
          });
        });
        weight += kChains * kQuad;
      }
      for (; source < end_of_row; source += kInputQuad, weight += kQuad) {
        const Sums x = four_bytes<kSigned>(source);
        unrolled<N>([&](auto j) __attribute__((always_inline)) {
          add_products(acc[0][j], x, load_bytes(weight + j * block));
        });
      }
      if constexpr (kSigned) {
        const int32_t* const shift = g.offset_sums + int64_t(k) * g.out_channels;
        unrolled<N>([&](auto j) __attribute__((always_inline)) { acc[0][j] -= load_sums(shift + 16 * j); });
      }
    });
    unrolled<N>([&](auto j) __attribute__((always_inline)) {
      unrolled<kChains - 1>([&](auto i) __attribute__((always_inline)) { acc[0][j] += acc[i + 1][j]; });
      store_sums(sums + 16 * j, acc[0][j]);
    });
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
