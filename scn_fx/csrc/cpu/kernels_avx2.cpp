// SPDX-License-Identifier: Apache-2.0
// AVX2, FMA and F16C (Haswell and Zen onwards).
#if defined(__AVX2__)
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

#include "cpu/kernels-inl.h"

namespace scn {
namespace {

constexpr int kRows =
    4;  // 4 rows x 16 outputs: 8 accumulators, and room for weights, a broadcast and constants

/// Products of bytes. x must be in [0, 127]: then two products sum to at most 2 * 127 * 128 = 32512 and the
/// saturating add of vpmaddubsw never saturates.
template <int R>
inline void block_u8(const int8_t* const* source, const int8_t* w, int32_t quads, int32_t* const* out) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[R][2];
  for (int r = 0; r < R; ++r) {
    acc[r][0] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(out[r]));
    acc[r][1] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(out[r] + 8));
  }
  for (int32_t q = 0; q < quads; ++q, w += 64) {
    const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
    const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32));
    for (int r = 0; r < R; ++r) {
      int32_t four;
      std::memcpy(&four, source[r] + 4 * q, 4);
      const __m256i x = _mm256_set1_epi32(four);
      acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(_mm256_maddubs_epi16(x, w0), ones));
      acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(_mm256_maddubs_epi16(x, w1), ones));
    }
  }
  for (int r = 0; r < R; ++r) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[r]), acc[r][0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[r] + 8), acc[r][1]);
  }
}

/// The same for signed x: weights and x widened to 16 bits, whose products cannot saturate.
template <int R>
inline void block_s8(const int8_t* const* source, const int8_t* w, int32_t quads, int32_t* const* out) {
  __m256i acc[R][2];  // lanes hold partial sums of one output each: pairs (c0, c1) and (c2, c3) are added at
                      // the end
  __m256i low[R][2];
  for (int r = 0; r < R; ++r) {
    for (int h = 0; h < 2; ++h) acc[r][h] = low[r][h] = _mm256_setzero_si256();
  }
  for (int32_t q = 0; q < quads; ++q, w += 64) {
    __m256i wide[4];  // 4 outputs x 4 channels each
    for (int i = 0; i < 4; ++i) {
      wide[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * i)));
    }
    for (int r = 0; r < R; ++r) {
      int32_t four;
      std::memcpy(&four, source[r] + 4 * q, 4);
      const __m256i x = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
      low[r][0] = _mm256_add_epi32(low[r][0], _mm256_madd_epi16(x, wide[0]));
      acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(x, wide[1]));
      low[r][1] = _mm256_add_epi32(low[r][1], _mm256_madd_epi16(x, wide[2]));
      acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(x, wide[3]));
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int h = 0; h < 2; ++h) {
      // hadd gives outputs 0 1 4 5 | 2 3 6 7 of the eight: put the pairs back in order
      const __m256i sums =
          _mm256_permute4x64_epi64(_mm256_hadd_epi32(low[r][h], acc[r][h]), _MM_SHUFFLE(3, 1, 2, 0));
      __m256i* target = reinterpret_cast<__m256i*>(out[r] + 8 * h);
      _mm256_storeu_si256(target, _mm256_add_epi32(_mm256_loadu_si256(target), sums));
    }
  }
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

/// Walks the offsets of a tile, the blocks of outputs, and the active rows four at a time.
template <typename X, typename W, typename A, typename Block4, typename Block1>
inline void walk(const GatherGemm& g, int64_t begin, int64_t end, A* acc, void* scratch, const Block4& four,
                 const Block1& one) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(A));
  int32_t* rows = static_cast<int32_t*>(scratch);
  int32_t* sources = rows + (end - begin);
  const X* x = static_cast<const X*>(g.x);
  for (int32_t k = 0; k < g.offsets; ++k) {
    const int32_t count = active_rows(g, begin, end, k, rows, sources);
    const W* weight = static_cast<const W*>(g.weight) + int64_t(k) * g.out_channels * g.in_channels;
    for (int32_t n = 0; n < g.out_channels;
         n += kOutputBlock, weight += int64_t(kOutputBlock) * g.in_channels) {
      const X* source[kRows];
      A* out[kRows];
      int32_t i = 0;
      for (; i + kRows <= count; i += kRows) {
        for (int r = 0; r < kRows; ++r) {
          source[r] = x + int64_t(sources[i + r]) * g.x_stride;
          out[r] = acc + int64_t(rows[i + r]) * g.out_channels + n;
        }
        four(source, weight, out);
      }
      for (; i < count; ++i) {
        source[0] = x + int64_t(sources[i]) * g.x_stride;
        out[0] = acc + int64_t(rows[i]) * g.out_channels + n;
        one(source, weight, out);
      }
    }
  }
}

void gemm_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* acc, void* scratch) {
  const int32_t quads = g.in_channels / kInputQuad;
  if (g.x_nonnegative) {
    walk<int8_t, int8_t>(
        g, begin, end, acc, scratch,
        [quads](const int8_t* const* x, const int8_t* w, int32_t* const* out) {
          block_u8<kRows>(x, w, quads, out);
        },
        [quads](const int8_t* const* x, const int8_t* w, int32_t* const* out) {
          block_u8<1>(x, w, quads, out);
        });
  } else {
    walk<int8_t, int8_t>(
        g, begin, end, acc, scratch,
        [quads](const int8_t* const* x, const int8_t* w, int32_t* const* out) {
          block_s8<2>(x, w, quads, out), block_s8<2>(x + 2, w, quads, out + 2);
        },
        [quads](const int8_t* const* x, const int8_t* w, int32_t* const* out) {
          block_s8<1>(x, w, quads, out);
        });
  }
}

void gemm_float(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void* scratch, bool) {
  const int32_t channels = g.in_channels;
  walk<float, float>(
      g, begin, end, acc, scratch,
      [channels](const float* const* x, const float* w, float* const* out) {
        block_float<kRows>(x, w, channels, out);
      },
      [channels](const float* const* x, const float* w, float* const* out) {
        block_float<1>(x, w, channels, out);
      });
}

}  // namespace

const Kernels kAvx2Kernels = {"avx2", gemm_int8, gemm_float, finish_rows, convert_from_half, convert_to_half};

}  // namespace scn
#endif
