// SPDX-License-Identifier: Apache-2.0
// Any finish: several forms, float32, dense maps and activations of all kinds. Layers that have one of the
// usual finishes do not come here, and what is unrolled for all values of a lane is most of a compiler's
// work, so this trades time for code: values lie in local memory, and loops take some at a time.
#pragma once

#include "cuda/convolution/activations.cuh"
#include "cuda/convolution/lane_int8.cuh"
#include "cuda/convolution/lost.cuh"

namespace scn::cuda {

/// Values of a lane that are finished together: neighbouring channels of a row.
template <typename Rows, int Run>
struct LaneChunks {
  static constexpr int kSize = Run < 8 ? Run : 8, kOfRow = Run / kSize, kCount = Rows::kCount * kOfRow;
  using Values = float[kSize];
};

/// Rounds values to float16; bits for those that are lost.
template <int Size>
__device__ __forceinline__ uint32_t round_chunk(float (&v)[Size]) {
  uint32_t bits = 0;
#pragma unroll
  for (int k = 0; k < Size; ++k) {
    int32_t once = 0;
    v[k] = through_half(v[k], once);
    bits |= uint32_t(once) << k;
  }
  return bits;
}

/// The affine map of a row's channels from `channel` on; scale and shift are zero beyond the last one.
template <int Size>
__device__ __forceinline__ void map_chunk(const EmissionView& e, float (&v)[Size], int32_t channel) {
#pragma unroll
  for (int k = 0; k < Size; ++k)
    v[k] = __fadd_rn(__fmul_rn(v[k], __ldg(e.scale + channel + k)), __ldg(e.shift + channel + k));
}

/// The Add, of a row's channels from `channel` on.
template <int Size>
__device__ __forceinline__ void add_chunk(const ResidualView& r, float (&v)[Size], int32_t row,
                                          int32_t channel, Lost& lost) {
  const char* const from = static_cast<const char*>(r.other) + int64_t(row) * r.stride;
  if (r.type == ElementType::kInt8) {
    LaneResidual<1, Size> other = {};
    load_words<Size>(other[0], from + channel);
    float (&one)[1][Size] = reinterpret_cast<float (&)[1][Size]>(v);
    add_int8<1, Size>(r, one, other);
    return;
  }
  if (r.rounds) lost.before_add += __popc(round_chunk(v));
  const int32_t element = r.type == ElementType::kFloat16 ? 2 : 4;
  // A row ends where its stored channels end; there are none beyond, and their values are zero.
  if (channel * element >= r.stride) return;
  if (element == 2) {
    Words<Size * 2> words;
    load_words<Size * 2>(words, from + channel * 2);
#pragma unroll
    for (int k = 0; k < Size; k += 2) {
      const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&words[k / 2]));
      v[k] = __fadd_rn(v[k], two.x);
      v[k + 1] = __fadd_rn(v[k + 1], two.y);
    }
  } else {
#pragma unroll
    for (int k = 0; k < Size; ++k) v[k] = __fadd_rn(v[k], reinterpret_cast<const float*>(from)[channel + k]);
  }
}

/// Writes values to the cells of a dense map.
template <int Size>
__device__ __forceinline__ void store_dense(const EmissionView& e, const float (&v)[Size], const Site& site,
                                            int32_t channel) {
  const int64_t cell = (int64_t(site.z) * e.height + site.y) * e.width + site.x;
  int64_t at = (int64_t(site.batch) * e.columns + channel) * e.cells + cell;
#pragma unroll
  for (int k = 0; k < Size; ++k, at += e.cells) {
    if (channel + k >= e.columns) return;
    if (e.type == ElementType::kFloat16) {
      static_cast<__half*>(e.out)[at] = __float2half_rn(v[k]);
    } else {
      static_cast<float*>(e.out)[at] = v[k];
    }
  }
}

template <int Size>
__device__ __forceinline__ void store_chunk(const EmissionView& e, const float (&v)[Size], int32_t row,
                                            int32_t channel) {
  char* const out = static_cast<char*>(e.out) + int64_t(row) * e.stride;
  if (e.type == ElementType::kInt8) {
    Words<Size> words;
    pack_int8<Size>(words, v, e.factor, kLowestInt8);
    store_words<Size>(out + channel, words);
  } else if (e.type == ElementType::kFloat16) {
    Words<Size * 2> words;
    pack_half<Size>(words, v);
    store_words<Size * 2>(out + channel * 2, words);
  } else {
    Words<Size * 4> words;
#pragma unroll
    for (int k = 0; k < Size; ++k) words[k] = __float_as_uint(v[k]);
    store_words<Size * 4>(out + channel * 4, words);
  }
}

template <>
struct LaneFinish<FinishKind::kAny> : FetchesNothing {
  static constexpr bool kCounts = true;

  template <typename T, typename Rows, int Run, typename Sum>
  static __device__ __forceinline__ void finish(const FinishView& f, const Sum (&sums)[Rows::kCount][Run],
                                                const float* scale, const float* bias,
                                                const LaneResidual<Rows::kCount, Run>&,
                                                const SitesView& sites, const LanePlace<Rows>& place,
                                                Lost& lost) {
    using Chunks = LaneChunks<Rows, Run>;
    constexpr int kSize = Chunks::kSize;
    float y[Rows::kCount][Run];
    scale_sums<T>(f, sums, y, scale, bias);
    const auto chunk_of = [&](int c) -> typename Chunks::Values& {
      return reinterpret_cast<typename Chunks::Values&>(y[c / Chunks::kOfRow][c % Chunks::kOfRow * kSize]);
    };
#pragma unroll 1
    for (int c = 0; c < Chunks::kCount; ++c) {
      if (!place.exists(c / Chunks::kOfRow)) continue;
      typename Chunks::Values& v = chunk_of(c);
      if (!is_floor(f.activation)) activate_all(f.activation, v);
      if (f.rounds) lost.before_add += __popc(round_chunk<kSize>(v));
      if (f.residual.other) {
        add_chunk<kSize>(f.residual, v, place.row_of(c / Chunks::kOfRow),
                         place.channel + c % Chunks::kOfRow * kSize, lost);
      }
    }
    int32_t stored = 0;
    for (int32_t which = 0; which < f.emission_count; ++which) {
      const EmissionView& e = f.emissions[which];
      int32_t once = 0;
#pragma unroll 1
      for (int c = 0; c < Chunks::kCount; ++c) {
        const int32_t row = place.row_of(c / Chunks::kOfRow),
                      channel = place.channel + c % Chunks::kOfRow * kSize;
        // rows are padded to whole chunks, at the least
        if (!place.exists(c / Chunks::kOfRow) || channel >= e.columns) continue;
        typename Chunks::Values v;
#pragma unroll
        for (int k = 0; k < kSize; ++k) v[k] = chunk_of(c)[k];
        uint32_t bits = 0;  // of values that are lost before or behind the activation
        if (e.rounds_first) bits = round_chunk<kSize>(v);
        if (e.scale) map_chunk<kSize>(e, v, channel);
        activate_all(e.activation, v);
        if (e.rounds) bits |= round_chunk<kSize>(v);
        once += __popc(bits);
        if (e.dense) {
          store_dense<kSize>(e, v, sites.sites[row], channel);
        } else {
          store_chunk<kSize>(e, v, row, channel);
        }
      }
      stored = max(stored, once);
    }
    lost.stored += stored;
  }
};

}  // namespace scn::cuda
