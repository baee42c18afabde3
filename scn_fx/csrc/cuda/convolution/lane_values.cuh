// SPDX-License-Identifier: Apache-2.0
// A lane's part of tensor-core sums: from its registers to numbers, and to memory. Output channels are
// ordered so that a lane holds a run of neighbouring ones of a few rows (k_order.h): nothing is exchanged
// between lanes.
//
// What a kernel does with its sums is a LaneFinish, one per FinishKind, in lane_int8_rows.cuh, lane_half.cuh
// and lane_any.cuh: a kernel's file includes those that it has.
#pragma once

#include <cuda_fp16.h>

#include "cuda/convolution/finish.h"
#include "cuda/convolution/finish_kind.h"
#include "cuda/convolution/floor.cuh"
#include "cuda/views.h"

namespace scn::cuda {

/// Rows of a lane, counted from its first: of sums laid out as mma.m16n8 does, with output rows as M (two
/// rows of sixteen) or as N (two neighbours of each of four eights).
struct TwoRows {
  static constexpr int kCount = 2;
  static __device__ __forceinline__ constexpr int32_t offset(int i) { return 8 * i; }
};
struct EightRows {
  static constexpr int kCount = 8;
  static __device__ __forceinline__ constexpr int32_t offset(int i) { return i / 2 * 8 + i % 2; }
};

/// A lane's part of the result: some rows, a run of channels.
template <typename Rows>
struct LanePlace {
  int32_t row, rows, channel;  // first row, rows of the result, first channel
  __device__ __forceinline__ int32_t row_of(int i) const { return row + Rows::offset(i); }
  __device__ __forceinline__ bool exists(int i) const { return row_of(i) < rows; }
};

/// Bytes of a run, in words; a run of two int8 has half a word.
template <int Bytes>
using Words = uint32_t[(Bytes + 3) / 4];

template <int Bytes>
__device__ __forceinline__ void store_words(char* to, const Words<Bytes>& words) {
  if constexpr (Bytes == 2) {
    *reinterpret_cast<uint16_t*>(to) = uint16_t(words[0]);
  } else if constexpr (Bytes == 4) {
    *reinterpret_cast<uint32_t*>(to) = words[0];
  } else if constexpr (Bytes == 8) {
    *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
  } else {
#pragma unroll
    for (int i = 0; i < Bytes / 4; i += 4)
      *reinterpret_cast<uint4*>(to + i * 4) = make_uint4(words[i], words[i + 1], words[i + 2], words[i + 3]);
  }
}
template <int Bytes>
__device__ __forceinline__ void load_words(Words<Bytes>& words, const char* from) {
  if constexpr (Bytes == 2) {
    words[0] = *reinterpret_cast<const uint16_t*>(from);
  } else if constexpr (Bytes == 4) {
    words[0] = *reinterpret_cast<const uint32_t*>(from);
  } else if constexpr (Bytes == 8) {
    const uint2 v = *reinterpret_cast<const uint2*>(from);
    words[0] = v.x;
    words[1] = v.y;
  } else {
#pragma unroll
    for (int i = 0; i < Bytes / 4; i += 4) {
      const uint4 v = *reinterpret_cast<const uint4*>(from + i * 4);
      words[i] = v.x;
      words[i + 1] = v.y;
      words[i + 2] = v.z;
      words[i + 3] = v.w;
    }
  }
}

/// The same if they `exist`; otherwise `words` stay what they are. Without a branch: loads that stand behind
/// one wait for each other.
template <int Bytes>
__device__ __forceinline__ void load_words_if(Words<Bytes>& words, const char* from, bool exist) {
  const int32_t wanted = int32_t(exist);
  if constexpr (Bytes == 2) {
    asm volatile("{ .reg .pred p; setp.ne.s32 p, %2, 0; @p ld.global.u16 %0, [%1]; }"
                 : "+r"(words[0])
                 : "l"(from), "r"(wanted));
  } else if constexpr (Bytes == 4) {
    asm volatile("{ .reg .pred p; setp.ne.s32 p, %2, 0; @p ld.global.b32 %0, [%1]; }"
                 : "+r"(words[0])
                 : "l"(from), "r"(wanted));
  } else if constexpr (Bytes == 8) {
    asm volatile("{ .reg .pred p; setp.ne.s32 p, %3, 0; @p ld.global.v2.b32 {%0, %1}, [%2]; }"
                 : "+r"(words[0]), "+r"(words[1])
                 : "l"(from), "r"(wanted));
  } else {
#pragma unroll
    for (int i = 0; i < Bytes / 4; i += 4) {
      asm volatile("{ .reg .pred p; setp.ne.s32 p, %5, 0; @p ld.global.v4.b32 {%0, %1, %2, %3}, [%4]; }"
                   : "+r"(words[i]), "+r"(words[i + 1]), "+r"(words[i + 2]), "+r"(words[i + 3])
                   : "l"(from + i * 4), "r"(wanted));
    }
  }
}

/// An int8 Add's other operand: fetched before it is needed.
template <int Rows, int Run>
using LaneResidual = uint32_t[Rows][(Run + 3) / 4];

/// Sums become y: scale, bias, activation. `scale` and `bias` are those of the lane's channels. Padded
/// channels come out as zero by themselves: their weights, scales, biases and residuals are zero.
template <typename T, int Count, int Run, typename Sum>
__device__ __forceinline__ void scale_sums(const FinishView& f, const Sum (&sums)[Count][Run],
                                           float (&y)[Count][Run], const float* scale, const float* bias) {
  const float floor = floor_of(f.activation);
#pragma unroll
  for (int k = 0; k < Run; k += 2) {
    const float2 b = *reinterpret_cast<const float2*>(bias + k);
    float2 s = make_float2(1.0f, 1.0f);
    if (sizeof(T) == 1) s = *reinterpret_cast<const float2*>(scale + k);
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      const float low = float(sums[i][k]), high = float(sums[i][k + 1]);
      // integers times finite scales are never NaN
      y[i][k] =
          sizeof(T) == 1 ? fmaxf(__fmaf_rn(low, s.x, b.x), floor) : at_least(__fadd_rn(low, b.x), floor);
      y[i][k + 1] =
          sizeof(T) == 1 ? fmaxf(__fmaf_rn(high, s.y, b.y), floor) : at_least(__fadd_rn(high, b.y), floor);
    }
  }
}

template <int Run>
__device__ __forceinline__ void pack_half(Words<Run * 2>& words, const float (&v)[Run]) {
#pragma unroll
  for (int k = 0; k < Run; k += 2) {
    const __half2 two = __floats2half2_rn(v[k], v[k + 1]);
    words[k / 2] = *reinterpret_cast<const uint32_t*>(&two);
  }
}

/// fetch() asks for what is needed beside the sums, before the last of them are there; finish() stores.
template <FinishKind Kind>
struct LaneFinish;

/// The fetch() of a finish that needs nothing beside the sums.
struct FetchesNothing {
  template <int Run, typename Rows>
  static __device__ __forceinline__ void fetch(LaneResidual<Rows::kCount, Run>&, const FinishView&,
                                               const SitesView&, const LanePlace<Rows>&) {}
};

}  // namespace scn::cuda
