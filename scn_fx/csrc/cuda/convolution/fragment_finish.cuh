// SPDX-License-Identifier: Apache-2.0
// The finish of tensor-core sums: from a lane's registers to memory. Output channels are ordered so that a
// lane holds a run of neighbouring ones of a few rows (tensor_params.h): nothing is exchanged between lanes.
#pragma once

#include "cuda/convolution/finish.cuh"
#include "cuda/convolution/tensor_params.h"

namespace scn::cuda {

/// Which finish a kernel has: the usual ones are a fifth of the code of the one that does everything.
enum class FinishKind { kInt8Rows, kHalfRows, kHalfDense, kAny };

template <typename T>
FinishKind finish_kind(const FinishView& f) {
  const bool int8 = sizeof(T) == 1;
  const EmissionView& first = f.emissions[0];
  bool floors = is_floor(f.activation);
  for (int32_t i = 0; i < f.emission_count; ++i)
    floors = floors && is_floor(f.emissions[i].activation) && !f.emissions[i].rounds_first;
  if (!floors) return FinishKind::kAny;
  if (f.emission_count == 1 && first.dense && first.type == ElementType::kFloat16 && first.rounds &&
      !f.rounds && !f.residual.other)
    return FinishKind::kHalfDense;
  const ElementType wanted = int8 ? ElementType::kInt8 : ElementType::kFloat16;
  bool usual = !f.residual.other || (f.residual.type == wanted && (int8 || f.residual.rounds));
  usual = usual && (int8 ? !f.rounds : f.emission_count == 1);
  for (int32_t i = 0; i < f.emission_count; ++i) {
    const EmissionView& e = f.emissions[i];
    usual = usual && !e.dense && e.type == wanted && e.rounds == !int8;
  }
  return !usual ? FinishKind::kAny : int8 ? FinishKind::kInt8Rows : FinishKind::kHalfRows;
}

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

__device__ __forceinline__ float clamped(float v) { return fminf(fmaxf(v, kLowestInt8), kHighestInt8); }
__device__ __forceinline__ float quantised_fast(float v) {
  return __fsub_rn(__fadd_rn(clamped(v), kRounder), kRounder);
}

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

/// An int8 Add's other operand: fetched before it is needed.
template <int Rows, int Run>
using LaneResidual = uint32_t[Rows][(Run + 3) / 4];

template <int Run, typename Rows>
__device__ __forceinline__ void fetch_residual(LaneResidual<Rows::kCount, Run>& words, const ResidualView& r,
                                               const LanePlace<Rows>& place) {
  const bool wanted = r.other && r.type == ElementType::kInt8;
  const char* const from = static_cast<const char*>(r.other) + place.channel;
#pragma unroll
  for (int i = 0; i < Rows::kCount; ++i) {
#pragma unroll
    for (int k = 0; k < (Run + 3) / 4; ++k) words[i][k] = 0;
    if (wanted && place.exists(i)) load_words<Run>(words[i], from + int64_t(place.row_of(i)) * r.stride);
  }
}

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

template <int Count, int Run>
__device__ __forceinline__ void add_int8(const ResidualView& r, float (&y)[Count][Run],
                                         const LaneResidual<Count, Run>& other) {
  const float self_factor = r.scales.self_factor, self_scale = r.scales.self_scale,
              other_scale = r.scales.other_scale;
  const bool second = r.self_is_second;
#pragma unroll
  for (int i = 0; i < Count; ++i) {
#pragma unroll
    for (int k = 0; k < Run; ++k) {
      const float o = float(int8_t(other[i][k / 4] >> (8 * (k % 4))));
      const float q = quantised_fast(__fmul_rn(y[i][k], self_factor));
      // fma(first operand, its scale, second operand * its scale)
      y[i][k] = second ? __fmaf_rn(o, other_scale, __fmul_rn(q, self_scale))
                       : __fmaf_rn(q, self_scale, __fmul_rn(o, other_scale));
    }
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
#pragma unroll
  for (int i = 0; i < Rows::kCount; ++i) {
    if (!place.exists(i)) continue;
    const char* const from = first + int64_t(place.row_of(i)) * r.stride;
    if (element == 2) {
      Words<Run * 2> words;
      load_words<Run * 2>(words, from);
#pragma unroll
      for (int k = 0; k < Run; k += 2) {
        const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&words[k / 2]));
        y[i][k] = __fadd_rn(y[i][k], two.x);
        y[i][k + 1] = __fadd_rn(y[i][k + 1], two.y);
      }
    } else {
#pragma unroll
      for (int k = 0; k < Run; ++k) y[i][k] = __fadd_rn(y[i][k], reinterpret_cast<const float*>(from)[k]);
    }
  }
}

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

/// int8 of values that are clamped here, at `lowest` and 127; none of them is NaN (see quantised).
template <int Run>
__device__ __forceinline__ void pack_int8(Words<Run>& words, const float (&v)[Run], float factor,
                                          float lowest) {
#pragma unroll
  for (int k = 0; k < Run; k += 4) {
    uint32_t bits[4] = {};
#pragma unroll
    for (int b = 0; b < 4 && k + b < Run; ++b) {
      const float q = fminf(fmaxf(__fmul_rn(v[k + b], factor), lowest), 127.0f);
      bits[b] = __float_as_uint(__fadd_rn(q, kRounder));
    }
    words[k / 4] = __byte_perm(bits[0], bits[1], 0x0040);
    if constexpr (Run >= 4)
      words[k / 4] = __byte_perm(words[k / 4], __byte_perm(bits[2], bits[3], 0x0040), 0x5410);
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

/// Where the lane's rows go in a dense map: fetched before it is needed, into the words of a residual, which
/// such a layer has not.
template <int Run, typename Rows>
__device__ __forceinline__ void fetch_cells(LaneResidual<Rows::kCount, Run>& words, const EmissionView& e,
                                            const SitesView& sites, const LanePlace<Rows>& place) {
  static_assert(Run == 16, "room for a site");
#pragma unroll
  for (int i = 0; i < Rows::kCount; ++i) {
    int4 site = make_int4(0, 0, 0, 0);
    if (place.exists(i)) site = __ldg(reinterpret_cast<const int4*>(sites.sites) + place.row_of(i));
    words[i][0] = uint32_t(site.x);
    words[i][1] = uint32_t((site.y * e.height + site.z) * e.width + site.w);
  }
}

/// One form, the cells of a float16 dense map.
template <typename Rows, int Run>
__device__ __forceinline__ void emit_half_dense(const FinishView& f, const float (&y)[Rows::kCount][Run],
                                                const LaneResidual<Rows::kCount, Run>& cells,
                                                const LanePlace<Rows>& place, Lost& lost) {
  const EmissionView& e = f.emissions[0];
  const float lowest = floor_of(e.activation);
#pragma unroll
  for (int i = 0; i < Rows::kCount; ++i) {
    if (!place.exists(i)) continue;
    const int64_t plane = int64_t(int32_t(cells[i][0])) * e.columns + place.channel;
    __half* to = static_cast<__half*>(e.out) + plane * e.cells + int32_t(cells[i][1]);
#pragma unroll
    for (int k = 0; k < Run; ++k, to += e.cells) {
      const float v = at_least(y[i][k], lowest);
      if (place.channel + k >= e.columns) break;
      lost.stored += !(fabsf(v) < kHalfOverflow);
      *to = __float2half_rn(v);
    }
  }
}

template <typename T, FinishKind Kind, typename Rows, int Run, typename Sum>
__device__ __forceinline__ void finish_tile(const FinishView& f, const Sum (&sums)[Rows::kCount][Run],
                                            const float* scale, const float* bias,
                                            const LaneResidual<Rows::kCount, Run>& residual,
                                            const SitesView& sites, const LanePlace<Rows>& place,
                                            Lost& lost) {
  float y[Rows::kCount][Run];
  scale_sums<T>(f, sums, y, scale, bias);
  if constexpr (Kind == FinishKind::kInt8Rows) {
    if (f.residual.other) add_int8<Rows::kCount, Run>(f.residual, y, residual);
    emit_int8_rows<Rows, Run>(f, y, place);
  } else if constexpr (Kind == FinishKind::kHalfRows) {
    if (f.residual.other) {
      int32_t once = 0;  // rounding twice changes nothing, but what is lost is lost in both values
      round_all<Rows, Run>(y, place, once);
      lost.before_add += f.rounds ? 2 * once : once;
      add_float<Rows, Run>(f.residual, y, place);
    }
    emit_half_rows<Rows, Run>(f, y, place, lost);
  } else if constexpr (Kind == FinishKind::kHalfDense) {
    emit_half_dense<Rows, Run>(f, y, residual, place, lost);
  } else {
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
}

}  // namespace scn::cuda
