// SPDX-License-Identifier: Apache-2.0
// int8 rows from int8 sums.
#pragma once

#include "cuda/convolution/lane_int8.cuh"
#include "cuda/convolution/lost.cuh"

namespace scn::cuda {

template <int Run, typename Rows>
__device__ __forceinline__ void fetch_residual(LaneResidual<Rows::kCount, Run>& words, const ResidualView& r,
                                               const LanePlace<Rows>& place) {
  const bool wanted = r.other && r.type == ElementType::kInt8;
  const char* const from = static_cast<const char*>(r.other) + place.channel;
#pragma unroll
  for (int i = 0; i < Rows::kCount; ++i) {
#pragma unroll
    for (int k = 0; k < (Run + 3) / 4; ++k) words[i][k] = 0;
    load_words_if<Run>(words[i], from + int64_t(place.row_of(i)) * r.stride, wanted && place.exists(i));
  }
}

/// int8 rows alone.
template <typename Rows, int Run>
__device__ __forceinline__ void emit_int8_rows(const FinishView& f, const float (&y)[Rows::kCount][Run],
                                               const LanePlace<Rows>& place) {
  for (int32_t which = 0; which < f.emission_count; ++which) {
    const EmissionView& e = f.emissions[which];
    if (place.channel >= e.columns) continue;
    // max(max(y, 0) * factor, -128) is max(y * factor, 0): factors are positive, and y is no NaN.
    const float factor = e.factor, lowest = fmaxf(floor_of(e.activation), kLowestInt8);
    char* const out = static_cast<char*>(e.out) + int64_t(place.row) * e.stride + place.channel;
#pragma unroll
    for (int i = 0; i < Rows::kCount; ++i) {
      Words<Run> words;
      pack_int8<Run>(words, y[i], factor, lowest);
      if (place.exists(i)) store_words<Run>(out + Rows::offset(i) * e.stride, words);
    }
  }
}

template <>
struct LaneFinish<FinishKind::kInt8Rows> {
  static constexpr bool kCounts = false;  // nothing can be lost

  template <int Run, typename Rows>
  static __device__ __forceinline__ void fetch(LaneResidual<Rows::kCount, Run>& words, const FinishView& f,
                                               const SitesView&, const LanePlace<Rows>& place) {
    fetch_residual<Run>(words, f.residual, place);
  }

  template <typename T, typename Rows, int Run, typename Sum>
  static __device__ __forceinline__ void finish(const FinishView& f, const Sum (&sums)[Rows::kCount][Run],
                                                const float* scale, const float* bias,
                                                const LaneResidual<Rows::kCount, Run>& residual,
                                                const SitesView&, const LanePlace<Rows>& place, Lost&) {
    float y[Rows::kCount][Run];
    scale_sums<T>(f, sums, y, scale, bias);
    if (f.residual.other) add_int8<Rows::kCount, Run>(f.residual, y, residual);
    emit_int8_rows<Rows, Run>(f, y, place);
  }
};

}  // namespace scn::cuda
