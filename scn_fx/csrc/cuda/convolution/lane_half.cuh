// SPDX-License-Identifier: Apache-2.0
// One form of float16: rows, or the cells of a dense map.
#pragma once

#include "cuda/convolution/lane_values.cuh"
#include "cuda/convolution/lost.cuh"

namespace scn::cuda {

/// Rounds all values to float16; counts those that do not fit, in rows that exist.
template <typename Rows, int Run>
__device__ __forceinline__ void round_all(float (&y)[Rows::kCount][Run], const LanePlace<Rows>& place,
                                          int32_t& lost) {
#pragma unroll
  for (int i = 0; i < Rows::kCount; ++i) {
    float largest = 0.0f;
#pragma unroll
    for (int k = 0; k < Run; ++k) largest = larger_magnitude(largest, y[i][k]);
    if (!(largest < kHalfOverflow) && place.exists(i)) {  // rare
#pragma unroll
      for (int k = 0; k < Run; ++k) lost += !(fabsf(y[i][k]) < kHalfOverflow);
    }
#pragma unroll
    for (int k = 0; k < Run; ++k) y[i][k] = __half2float(__float2half_rn(y[i][k]));
  }
}

/// Adds float16 or float32 rows.
template <typename Rows, int Run>
__device__ __forceinline__ void add_float(const ResidualView& r, float (&y)[Rows::kCount][Run],
                                          const LanePlace<Rows>& place) {
  const int32_t element = r.type == ElementType::kFloat16 ? 2 : 4;
  // A row ends where its stored channels end; there are none beyond, and their values are zero.
  if (place.channel * element >= r.stride) return;
  const char* const first = static_cast<const char*>(r.other) + place.channel * element;
  if (element == 2) {
    Words<Run * 2> words[Rows::kCount] = {};
#pragma unroll
    for (int i = 0; i < Rows::kCount; ++i)
      load_words_if<Run * 2>(words[i], first + int64_t(place.row_of(i)) * r.stride, place.exists(i));
#pragma unroll
    for (int i = 0; i < Rows::kCount; ++i) {
#pragma unroll
      for (int k = 0; k < Run; k += 2) {
        const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&words[i][k / 2]));
        y[i][k] = __fadd_rn(y[i][k], two.x);
        y[i][k + 1] = __fadd_rn(y[i][k + 1], two.y);
      }
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < Rows::kCount; ++i) {
    if (!place.exists(i)) continue;
    const char* const from = first + int64_t(place.row_of(i)) * r.stride;
#pragma unroll
    for (int k = 0; k < Run; ++k) y[i][k] = __fadd_rn(y[i][k], reinterpret_cast<const float*>(from)[k]);
  }
}

/// One form, float16 rows.
template <typename Rows, int Run>
__device__ __forceinline__ void emit_half_rows(const FinishView& f, float (&y)[Rows::kCount][Run],
                                               const LanePlace<Rows>& place, Lost& lost) {
  const EmissionView& e = f.emissions[0];
  if (place.channel >= e.columns) return;
  const float lowest = floor_of(e.activation);
  char* const out = static_cast<char*>(e.out) + int64_t(place.row) * e.stride + place.channel * 2;
#pragma unroll
  for (int i = 0; i < Rows::kCount; ++i) {
    float largest = 0.0f;
#pragma unroll
    for (int k = 0; k < Run; ++k) {
      y[i][k] = at_least(y[i][k], lowest);
      largest = larger_magnitude(largest, y[i][k]);
    }
    if (!place.exists(i)) continue;
    Words<Run * 2> words;
    pack_half<Run>(words, y[i]);
    store_words<Run * 2>(out + Rows::offset(i) * e.stride, words);
    if (!(largest < kHalfOverflow)) {  // rare
#pragma unroll
      for (int k = 0; k < Run; ++k) lost.stored += !(fabsf(y[i][k]) < kHalfOverflow);
    }
  }
}

/// One form, the cells of a float16 dense map.
template <typename Rows, int Run>
__device__ __forceinline__ void emit_half_dense(const FinishView& f, const float (&y)[Rows::kCount][Run],
                                                const SitesView& sites, const LanePlace<Rows>& place,
                                                Lost& lost) {
  const EmissionView& e = f.emissions[0];
  const float lowest = floor_of(e.activation);
  int4 site[Rows::kCount];
#pragma unroll
  for (int i = 0; i < Rows::kCount; ++i) {
    site[i] = make_int4(0, 0, 0, 0);
    if (place.exists(i)) site[i] = __ldg(reinterpret_cast<const int4*>(sites.sites) + place.row_of(i));
  }
#pragma unroll
  for (int i = 0; i < Rows::kCount; ++i) {
    if (!place.exists(i)) continue;
    const int64_t plane = int64_t(site[i].x) * e.columns + place.channel;
    __half* to = static_cast<__half*>(e.out) + plane * e.cells +
                 (site[i].y * e.height + site[i].z) * e.width + site[i].w;
#pragma unroll
    for (int k = 0; k < Run; ++k, to += e.cells) {
      const float v = at_least(y[i][k], lowest);
      if (place.channel + k >= e.columns) break;
      lost.stored += !(fabsf(v) < kHalfOverflow);
      *to = __float2half_rn(v);
    }
  }
}

template <>
struct LaneFinish<FinishKind::kHalfRows> : FetchesNothing {
  static constexpr bool kCounts = true;

  template <typename T, typename Rows, int Run, typename Sum>
  static __device__ __forceinline__ void finish(const FinishView& f, const Sum (&sums)[Rows::kCount][Run],
                                                const float* scale, const float* bias,
                                                const LaneResidual<Rows::kCount, Run>&, const SitesView&,
                                                const LanePlace<Rows>& place, Lost& lost) {
    float y[Rows::kCount][Run];
    scale_sums<T>(f, sums, y, scale, bias);
    if (f.residual.other) {
      int32_t once = 0;  // rounding twice changes nothing, but what is lost is lost in both values
      round_all<Rows, Run>(y, place, once);
      lost.before_add += f.rounds ? 2 * once : once;
      add_float<Rows, Run>(f.residual, y, place);
    }
    emit_half_rows<Rows, Run>(f, y, place, lost);
  }
};

template <>
struct LaneFinish<FinishKind::kHalfDense> : FetchesNothing {
  static constexpr bool kCounts = true;

  template <typename T, typename Rows, int Run, typename Sum>
  static __device__ __forceinline__ void finish(const FinishView& f, const Sum (&sums)[Rows::kCount][Run],
                                                const float* scale, const float* bias,
                                                const LaneResidual<Rows::kCount, Run>&,
                                                const SitesView& sites, const LanePlace<Rows>& place,
                                                Lost& lost) {
    float y[Rows::kCount][Run];
    scale_sums<T>(f, sums, y, scale, bias);
    emit_half_dense<Rows, Run>(f, y, sites, place, lost);
  }
};

}  // namespace scn::cuda
