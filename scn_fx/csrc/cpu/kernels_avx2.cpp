// SPDX-License-Identifier: Apache-2.0
// AVX2, FMA and F16C (Haswell and Zen onwards).
#if defined(__AVX2__)
#include "cpu/vec16_avx2-inl.h"
// after the vectors it is written in
#include "cpu/walk-inl.h"

namespace scn {
namespace {

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

struct UnsignedBlock {
  using X = int8_t;
  using W = int8_t;
  using A = int32_t;
  // 4 rows x 16 outputs: 8 accumulators, and room for weights, a broadcast and constants
  static constexpr int kRows = 4, kOutputs = 16;
  template <int R>
  static inline void run(const GatherGemm& g, int32_t, int32_t, const X* const* x, const W* weight,
                         A* const* sums) {
    block_u8<R>(x, weight, g.in_channels / kInputQuad, sums);
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

void gemm_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* acc, void* scratch) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(int32_t));
  if (g.x_nonnegative) {
    walk<UnsignedBlock>(g, begin, end, acc, scratch, 0, g.out_channels);
  } else {
    walk<SignedBlock>(g, begin, end, acc, scratch, 0, g.out_channels);
  }
}

void gemm_float(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void* scratch, bool) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(float));
  walk<FloatBlock>(g, begin, end, acc, scratch, 0, g.out_channels);
}

}  // namespace

const Kernels kAvx2Kernels = {"avx2", gemm_int8, gemm_float, finish_rows, convert_from_half, convert_to_half};

}  // namespace scn
#endif
