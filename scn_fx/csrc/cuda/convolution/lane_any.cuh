// SPDX-License-Identifier: Apache-2.0
// Any finish: several forms, float32, dense maps and activations of all kinds.
#pragma once

#include "cuda/convolution/lane_half.cuh"
#include "cuda/convolution/lane_int8_rows.cuh"

namespace scn::cuda {

/// Writes values to the cells of a dense map.
template <int Run>
__device__ __forceinline__ void store_dense(const EmissionView& e, const float (&v)[Run], const Site& site,
                                            int32_t channel) {
  const int64_t cell = (int64_t(site.z) * e.height + site.y) * e.width + site.x;
  int64_t at = (int64_t(site.batch) * e.columns + channel) * e.cells + cell;
#pragma unroll
  for (int k = 0; k < Run; ++k, at += e.cells) {
    if (channel + k >= e.columns) return;
    if (e.type == ElementType::kFloat16) {
      static_cast<__half*>(e.out)[at] = __float2half_rn(v[k]);
    } else {
      static_cast<float*>(e.out)[at] = v[k];
    }
  }
}

template <int Run>
__device__ __forceinline__ void round_run(float (&v)[Run], int32_t& lost) {
#pragma unroll
  for (int k = 0; k < Run; ++k) v[k] = through_half(v[k], lost);
}

/// Stores every form of y.
template <typename Rows, int Run>
__device__ __forceinline__ void emit_forms(const FinishView& f, const float (&y)[Rows::kCount][Run],
                                           const SitesView& sites, const LanePlace<Rows>& place, Lost& lost) {
  int32_t stored = 0;
  for (int32_t which = 0; which < f.emission_count; ++which) {
    const EmissionView& e = f.emissions[which];
    const float floor = floor_of(e.activation);
    const bool other = !is_floor(e.activation);
    int32_t once = 0;
    if (place.channel >= e.columns) continue;  // rows are padded to whole runs, at the least
#pragma unroll
    for (int i = 0; i < Rows::kCount; ++i) {
      if (!place.exists(i)) continue;
      const int32_t row = place.row_of(i);
      char* const out = static_cast<char*>(e.out) + int64_t(row) * e.stride;
      float v[Run];
#pragma unroll
      for (int k = 0; k < Run; ++k) v[k] = at_least(y[i][k], floor);
      int32_t first = 0, behind = 0;
      if (other) {
        if (e.rounds_first) round_run<Run>(v, first);
#pragma unroll
        for (int k = 0; k < Run; ++k) v[k] = activate(e.activation, v[k]);
      }
      if (e.rounds) round_run<Run>(v, behind);
      once += max(first, behind);
      if (e.dense) {
        store_dense<Run>(e, v, sites.sites[row], place.channel);
      } else if (e.type == ElementType::kInt8) {
        Words<Run> words;
        pack_int8<Run>(words, v, e.factor, -128.0f);
        store_words<Run>(out + place.channel, words);
      } else if (e.type == ElementType::kFloat16) {
        Words<Run * 2> words;
        pack_half<Run>(words, v);
        store_words<Run * 2>(out + place.channel * 2, words);
      } else {
        Words<Run * 4> words;
#pragma unroll
        for (int k = 0; k < Run; ++k) words[k] = __float_as_uint(v[k]);
        store_words<Run * 4>(out + place.channel * 4, words);
      }
    }
    stored = max(stored, once);
  }
  lost.stored += stored;
}

template <>
struct LaneFinish<FinishKind::kAny> {
  static constexpr bool kCounts = true;

  template <int Run, typename Rows>
  static __device__ __forceinline__ void fetch(LaneResidual<Rows::kCount, Run>& words, const FinishView& f,
                                               const SitesView&, const LanePlace<Rows>& place) {
    fetch_residual<Run>(words, f.residual, place);
  }

  template <typename T, typename Rows, int Run, typename Sum>
  static __device__ __forceinline__ void finish(const FinishView& f, const Sum (&sums)[Rows::kCount][Run],
                                                const float* scale, const float* bias,
                                                const LaneResidual<Rows::kCount, Run>& residual,
                                                const SitesView& sites, const LanePlace<Rows>& place,
                                                Lost& lost) {
    float y[Rows::kCount][Run];
    scale_sums<T>(f, sums, y, scale, bias);
    if (!is_floor(f.activation)) {
#pragma unroll
      for (int i = 0; i < Rows::kCount; ++i)
#pragma unroll
        for (int k = 0; k < Run; ++k) y[i][k] = activate(f.activation, y[i][k]);
    }
    if (f.rounds) round_all<Rows, Run>(y, place, lost.before_add);
    if (f.residual.other && f.residual.type == ElementType::kInt8) {
      add_int8<Rows::kCount, Run>(f.residual, y, residual);
    } else if (f.residual.other) {
      if (f.residual.rounds) round_all<Rows, Run>(y, place, lost.before_add);
      add_float<Rows, Run>(f.residual, y, place);
    }
    emit_forms<Rows, Run>(f, y, sites, place, lost);
  }
};

}  // namespace scn::cuda
