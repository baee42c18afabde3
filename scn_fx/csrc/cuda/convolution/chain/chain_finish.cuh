// SPDX-License-Identifier: Apache-2.0
// From the sums of a thread's eight columns of a row to what is stored. Branches are for all eight values at
// once, loads and stores as wide as rows allow.
#pragma once

#include "cuda/convolution/value_finish.cuh"
#include "cuda/views.h"

namespace scn::cuda {

constexpr int32_t kChainColumns = 8;  // of one thread
using ChainValues = float[kChainColumns];

/// The Add's other operand, from `column` on; `channels`: real ones, beyond which rows may end.
__device__ __forceinline__ void load_operands(const ResidualView& r, int32_t row, int32_t column,
                                              int32_t channels, ChainValues& v) {
  const char* const at = static_cast<const char*>(r.other) + int64_t(row) * r.stride;
#pragma unroll
  for (int i = 0; i < kChainColumns; ++i) v[i] = 0.0f;
  if (column >= channels) return;
  if (r.type == ElementType::kInt8) {
    const uint2 chunk = *reinterpret_cast<const uint2*>(at + column);
#pragma unroll
    for (int i = 0; i < kChainColumns; ++i)
      v[i] = float(int8_t((i < 4 ? chunk.x : chunk.y) >> (8 * (i & 3))));
  } else if (r.type == ElementType::kFloat16) {
    const uint4 chunk = *reinterpret_cast<const uint4*>(at + column * 2);
    const __half2* const pairs = reinterpret_cast<const __half2*>(&chunk);
#pragma unroll
    for (int i = 0; i < kChainColumns; ++i)
      v[i] = i % 2 ? __high2float(pairs[i / 2]) : __low2float(pairs[i / 2]);
  } else {
#pragma unroll
    for (int i = 0; i < kChainColumns; i += 4) {
      if (column + i >= channels) break;
      const float4 chunk = *reinterpret_cast<const float4*>(at + (column + i) * 4);
      v[i] = chunk.x;
      v[i + 1] = chunk.y;
      v[i + 2] = chunk.z;
      v[i + 3] = chunk.w;
    }
  }
}

/// Four int8 values in a word. They are rounded by the adder: with 1.5 * 2^23, the last place of a float
/// is 1.
__device__ __forceinline__ uint32_t int8_word(const float* v, float factor) {
  uint32_t word[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    word[i] = __float_as_uint(
        __fadd_rn(fminf(fmaxf(__fmul_rn(v[i], factor), kLowestInt8), kHighestInt8), kRounder));
  return __byte_perm(__byte_perm(word[0], word[1], 0x0040), __byte_perm(word[2], word[3], 0x0040), 0x5410);
}

__device__ __forceinline__ uint32_t half_pair(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ __forceinline__ void store_dense(const EmissionView& e, const SitesView& sites, int32_t row,
                                            int32_t column, const ChainValues& v) {
  const Site s = sites.sites[row];
  const int64_t cell = (int64_t(s.z) * e.height + s.y) * e.width + s.x;
#pragma unroll
  for (int i = 0; i < kChainColumns; ++i) {
    if (column + i >= e.columns) return;
    const int64_t at = (int64_t(s.batch) * e.columns + column + i) * e.cells + cell;
    if (e.type == ElementType::kFloat16) {
      static_cast<__half*>(e.out)[at] = __float2half_rn(v[i]);
    } else {
      static_cast<float*>(e.out)[at] = v[i];
    }
  }
}

/// Stored rows are whole 16-byte chunks: eight bytes or halves, or four floats, are all inside or all
/// outside.
__device__ __forceinline__ void store_row(const EmissionView& e, int32_t row, int32_t column,
                                          const ChainValues& v) {
  char* const at = static_cast<char*>(e.out) + int64_t(row) * e.stride;
  if (column >= e.columns) return;
  if (e.type == ElementType::kInt8) {
    *reinterpret_cast<uint2*>(at + column) = make_uint2(int8_word(v, e.factor), int8_word(v + 4, e.factor));
  } else if (e.type == ElementType::kFloat16) {
    *reinterpret_cast<uint4*>(at + column * 2) = make_uint4(half_pair(v[0], v[1]), half_pair(v[2], v[3]),
                                                            half_pair(v[4], v[5]), half_pair(v[6], v[7]));
  } else {
#pragma unroll
    for (int i = 0; i < kChainColumns; i += 4) {
      if (column + i < e.columns)
        *reinterpret_cast<float4*>(at + (column + i) * 4) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
    }
  }
}

/// Rounds values to float16; adds a bit for each that is lost.
__device__ __forceinline__ void round_values(ChainValues& v, uint32_t& lost) {
#pragma unroll
  for (int i = 0; i < kChainColumns; ++i) {
    int32_t once = 0;
    v[i] = through_half(v[i], once);
    lost |= uint32_t(once) << i;
  }
}

/// Finishes and stores the columns [column, column + 8) of a row.
__device__ __forceinline__ void finish_chain(const FinishView& f, const SitesView& sites, int32_t row,
                                             int32_t column, ChainValues& y, Lost& lost) {
#pragma unroll
  for (int i = 0; i < kChainColumns; ++i) {
    y[i] = __fadd_rn(y[i], __ldg(f.bias + column + i));
  }
  activate_all(f.activation, y);
#pragma unroll
  for (int i = 0; i < kChainColumns; ++i) {
    if (column + i >= f.channels) y[i] = 0.0f;
  }
  if (f.rounds) {
#pragma unroll
    for (int i = 0; i < kChainColumns; ++i) y[i] = through_half(y[i], lost.before_add);
  }
  if (f.residual.other) {
    ChainValues other;
    load_operands(f.residual, row, column, f.channels, other);
#pragma unroll
    for (int i = 0; i < kChainColumns; ++i) {
      if (column + i < f.channels) y[i] = add_operands(f.residual, y[i], other[i], false, lost);
    }
  }
  uint32_t stored = 0;  // a bit per value that was lost, however many emissions lost it
  for (int32_t which = 0; which < f.emission_count; ++which) {
    const EmissionView& e = f.emissions[which];
    ChainValues v;
#pragma unroll
    for (int i = 0; i < kChainColumns; ++i) v[i] = y[i];
    if (e.rounds_first) round_values(v, stored);
    if (e.scale && column < e.columns) {
#pragma unroll
      for (int i = 0; i < kChainColumns; ++i)
        v[i] = __fadd_rn(__fmul_rn(v[i], __ldg(e.scale + column + i)), __ldg(e.shift + column + i));
    }
    activate_all(e.activation, v);
    if (e.rounds) round_values(v, stored);
    if (e.dense) {
      store_dense(e, sites, row, column, v);
    } else {
      store_row(e, row, column, v);
    }
  }
  lost.stored += __popc(stored);
}

}  // namespace scn::cuda
