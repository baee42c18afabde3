// SPDX-License-Identifier: Apache-2.0
// Loading the features of few channels.
#pragma once

#include "cuda/finish.cuh"
#include "cuda/lookup.cuh"
#include "cuda/rows.h"

namespace scn::cuda {

/// Puts one stored number into a 16-byte chunk.
__device__ __forceinline__ void put(uint32_t (&chunk)[4], Form form, int32_t i, float v) {
  if (form == Form::kInt8) {
    chunk[i >> 2] |= (uint32_t(int32_t(v)) & 0xffu) << (8 * (i & 3));
  } else if (form == Form::kHalf) {
    chunk[i >> 1] |= uint32_t(__half_as_ushort(__float2half_rn(v))) << (16 * (i & 1));
  } else {
    chunk[i] = __float_as_uint(v);
  }
}

template <typename T>
__device__ __forceinline__ void load_few_of(const LoadFewView& view, const DeviceFrame& frame, int32_t first,
                                            int32_t step) {
  constexpr int kChannels = LoadFewView::kChannels;
  const SitesView& set = view.set;
  const int32_t rows = __ldcg(set.count);
  for (int32_t i = first; i < frame.sites; i += step) {
    const int4 at = __ldg(reinterpret_cast<const int4*>(frame.indices) + i);
    const Site s{at.x, at.y, at.z, at.w};
    const T* const features = static_cast<const T*>(frame.features) + int64_t(i) * view.channels;
    float v[kChannels];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      v[c] = 0.0f;
      if (c < view.channels) v[c] = float(__ldg(features + c));
    }
    int32_t row = -1;
    if (inside(frame, set, s)) {
      const int64_t word = int64_t(line_of(set, s.batch, s.z, s.y)) * set.words_per_line + (s.x >> 5);
      const uint2 found = __ldcg(reinterpret_cast<const uint2*>(set.words) + word);
      row = row_in_word({found.x, int32_t(found.y)}, s.x);
    }
    if (row >= rows) row = -1;
    view.row_of_input[i] = row;
    int32_t bad = 0;
    uint32_t chunk[4] = {0, 0, 0, 0};
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      bad += !(fabsf(v[c]) < kHalfLimit);
      put(chunk, Form::kHalf, c, v[c]);
    }
    if (bad) {
      atomicAdd(&view.status[kNonFinite], bad);
      atomicMin(&view.status[kFirstNonFinite], i);
    }
    if (row >= 0)
      reinterpret_cast<uint4*>(view.out)[row] = make_uint4(chunk[0], chunk[1], chunk[2], chunk[3]);
  }
}

/// The caller's sites `first`, `first + step`, ...
__device__ __forceinline__ void load_few(const LoadFewView& view, int32_t first, int32_t step) {
  const DeviceFrame frame = *view.frame;
  if (frame.half) {
    load_few_of<__half>(view, frame, first, step);
  } else {
    load_few_of<float>(view, frame, first, step);
  }
}

}  // namespace scn::cuda
