// SPDX-License-Identifier: Apache-2.0
// The finish of tensor-core sums: from a lane's registers to memory. Sums are laid out as mma.m16n8 does, and their
// columns are ordered so that a lane holds a run of neighbouring channels of two rows (channel_of_column):
// nothing is exchanged between lanes.
#pragma once

#include "cuda/finish.cuh"
#include "cuda/tensor_params.h"

namespace scn::cuda {

/// v rounded to the nearest integer, ties to even, for |v| < 2^22: adding 1.5 * 2^23 leaves no bits for a
/// fraction, and the sum's low bits are the integer in two's complement.
constexpr float kRounder = 12582912.0f;

__device__ __forceinline__ float clamped(float v) { return fminf(fmaxf(v, -128.0f), 127.0f); }
__device__ __forceinline__ float quantised_fast(float v) {
  return __fsub_rn(__fadd_rn(clamped(v), kRounder), kRounder);
}

/// Which finish a kernel has: the usual ones are a fifth of the code of the one that does everything.
enum class FinishKind { kInt8Rows, kHalfRows, kAny };

template <typename T>
FinishKind finish_kind(const FinishView& f) {
  const bool int8 = sizeof(T) == 1;
  const Operand wanted = int8 ? Operand::kInt8 : Operand::kHalf;
  bool usual = f.residual.kind == Operand::kNone || (f.residual.kind == wanted && (int8 || f.residual.through_half));
  usual = usual && (int8 ? !f.through_half : f.emission_count == 1);
  for (int32_t i = 0; i < f.emission_count; ++i) {
    const EmissionView& e = f.emissions[i];
    usual = usual && !e.dense && e.form == (int8 ? Form::kInt8 : Form::kHalf) && e.through_half == !int8;
  }
  return !usual ? FinishKind::kAny : int8 ? FinishKind::kInt8Rows : FinishKind::kHalfRows;
}

/// The lane's part of a fragment: rows row and row + 8, channels [channel, channel + Run) of the layer.
struct LanePlace {
  int32_t row, rows, channel;  // rows: of the result
  __device__ __forceinline__ bool exists(int half) const { return row + 8 * half < rows; }
};

template <int Run>
using LaneValues = float[2][Run];

/// Copies whole words, as wide as the run is.
template <int Words>
__device__ __forceinline__ void store_words(char* to, const uint32_t (&words)[Words]) {
  if constexpr (Words == 1) {
    *reinterpret_cast<uint32_t*>(to) = words[0];
  } else if constexpr (Words == 2) {
    *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
  } else {
#pragma unroll
    for (int i = 0; i < Words; i += 4)
      *reinterpret_cast<uint4*>(to + i * 4) = make_uint4(words[i], words[i + 1], words[i + 2], words[i + 3]);
  }
}
template <int Words>
__device__ __forceinline__ void load_words(uint32_t (&words)[Words], const char* from) {
  if constexpr (Words == 1) {
    words[0] = *reinterpret_cast<const uint32_t*>(from);
  } else if constexpr (Words == 2) {
    const uint2 v = *reinterpret_cast<const uint2*>(from);
    words[0] = v.x;
    words[1] = v.y;
  } else {
#pragma unroll
    for (int i = 0; i < Words; i += 4) {
      const uint4 v = *reinterpret_cast<const uint4*>(from + i * 4);
      words[i] = v.x;
      words[i + 1] = v.y;
      words[i + 2] = v.z;
      words[i + 3] = v.w;
    }
  }
}

/// An int8 Add's other operand: fetched before it is needed.
template <int Run>
using LaneResidual = uint32_t[2][Run / 4];

template <int Run>
__device__ __forceinline__ void fetch_residual(LaneResidual<Run>& words, const ResidualView& r,
                                               const LanePlace& place) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < Run / 4; ++i) words[half][i] = 0;
    if (r.kind != Operand::kInt8 || !place.exists(half)) continue;
    load_words(words[half],
               static_cast<const char*>(r.other) + int64_t(place.row + 8 * half) * r.stride + place.channel);
  }
}

/// Rounds all values to float16; counts those that do not fit, in rows that exist.
template <int Run>
__device__ __forceinline__ void round_all(LaneValues<Run>& y, const LanePlace& place, int32_t& lost) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < Run; ++i) largest = fmaxf(largest, fabsf(y[half][i]));
    if (!(largest < kHalfLimit) && place.exists(half)) {  // rare
#pragma unroll
      for (int i = 0; i < Run; ++i) lost += !(fabsf(y[half][i]) < kHalfLimit);
    }
#pragma unroll
    for (int i = 0; i < Run; ++i) y[half][i] = __half2float(__float2half_rn(y[half][i]));
  }
}

template <int Run>
__device__ __forceinline__ void add_int8(const ResidualView& r, LaneValues<Run>& y,
                                         const LaneResidual<Run>& other) {
  const float self_factor = r.self_factor, self_scale = r.self_scale, other_scale = r.other_scale;
  const bool second = r.self_is_second;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < Run; ++i) {
      const float o = float(int8_t(other[half][i / 4] >> (8 * (i % 4))));
      const float q = quantised_fast(__fmul_rn(y[half][i], self_factor));
      // fma(first operand, its scale, second operand * its scale)
      y[half][i] = second ? __fmaf_rn(o, other_scale, __fmul_rn(q, self_scale))
                          : __fmaf_rn(q, self_scale, __fmul_rn(o, other_scale));
    }
  }
}

template <int Run>
__device__ __forceinline__ void add_float(const ResidualView& r, LaneValues<Run>& y, const LanePlace& place) {
  const int32_t element = r.kind == Operand::kHalf ? 2 : 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!place.exists(half)) continue;
    const char* const from = static_cast<const char*>(r.other) + int64_t(place.row + 8 * half) * r.stride +
                             place.channel * element;
    // A row ends where its stored channels end; there are none beyond, and their values are zero.
    if (place.channel * element >= r.stride) continue;
    if (element == 2) {
      uint32_t words[Run / 2];
      load_words(words, from);
#pragma unroll
      for (int i = 0; i < Run; i += 2) {
        const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&words[i / 2]));
        y[half][i] = __fadd_rn(y[half][i], two.x);
        y[half][i + 1] = __fadd_rn(y[half][i + 1], two.y);
      }
    } else {
#pragma unroll
      for (int i = 0; i < Run; ++i)
        y[half][i] = __fadd_rn(y[half][i], reinterpret_cast<const float*>(from)[i]);
    }
  }
}

/// Sums become y: scale, bias, activation, Add. `scale` and `bias` are those of the lane's channels. Padded
/// channels come out as zero by themselves: their weights, scales, biases and residuals are zero.
template <typename T, int Fragments, typename Sum>
__device__ __forceinline__ void finish_sums(const FinishView& f, const Sum (&sums)[Fragments][4],
                                            LaneValues<Fragments * 2>& y, const float* scale, const float* bias,
                                            const LaneResidual<Fragments * 2>& residual,
                                            const LanePlace& place, Lost& lost) {
  constexpr int kRun = Fragments * 2;
  const float floor = f.relu ? 0.0f : -INFINITY;
#pragma unroll
  for (int i = 0; i < kRun; i += 2) {
    const float2 b = *reinterpret_cast<const float2*>(bias + i);
    float2 s = make_float2(1.0f, 1.0f);
    if (sizeof(T) == 1) s = *reinterpret_cast<const float2*>(scale + i);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float sum = float(sums[i / 2][half * 2 + e]);
        y[half][i + e] = fmaxf(
            sizeof(T) == 1 ? __fmaf_rn(sum, e ? s.y : s.x, e ? b.y : b.x) : __fadd_rn(sum, e ? b.y : b.x),
            floor);
      }
    }
  }
  if (f.through_half) round_all<kRun>(y, place, lost.before_add);
  const ResidualView& r = f.residual;
  if (r.kind == Operand::kNone) return;
  if (r.kind == Operand::kInt8) {
    add_int8<kRun>(r, y, residual);
  } else {
    if (r.through_half) round_all<kRun>(y, place, lost.before_add);
    add_float<kRun>(r, y, place);
  }
}

/// Writes values to the cells of a dense map.
template <int Run>
__device__ __forceinline__ void store_dense(const EmissionView& e, const float (&v)[Run], const Site& site,
                                            const SitesView& sites, int32_t channel) {
  const int64_t cell = (int64_t(site.z) * sites.shape[1] + site.y) * sites.shape[2] + site.x;
  int64_t at = (int64_t(site.batch) * e.columns + channel) * e.cells + cell;
#pragma unroll
  for (int i = 0; i < Run; ++i, at += e.cells) {
    if (channel + i >= e.columns) return;
    if (e.form == Form::kHalf) {
      static_cast<__half*>(e.out)[at] = __float2half_rn(v[i]);
    } else {
      static_cast<float*>(e.out)[at] = v[i];
    }
  }
}

/// Stores every form of y.
template <int Run>
__device__ __forceinline__ void emit_forms(const FinishView& f, const LaneValues<Run>& y,
                                           const SitesView& sites, const LanePlace& place, Lost& lost) {
  int32_t stored = 0;
  for (int32_t which = 0; which < f.emission_count; ++which) {
    const EmissionView& e = f.emissions[which];
    const float floor = e.relu ? 0.0f : -INFINITY, factor = e.factor;
    int32_t once = 0;
    if (place.channel >= e.columns) continue;  // rows are padded to whole runs, at the least
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!place.exists(half)) continue;
      const int32_t row = place.row + 8 * half;
      char* const out = static_cast<char*>(e.out) + int64_t(row) * e.stride;
      float v[Run];
#pragma unroll
      for (int i = 0; i < Run; ++i) v[i] = fmaxf(y[half][i], floor);
      if (e.through_half) {
#pragma unroll
        for (int i = 0; i < Run; ++i) {
          once += !(fabsf(v[i]) < kHalfLimit);
          v[i] = __half2float(__float2half_rn(v[i]));
        }
      }
      if (e.dense) {
        store_dense<Run>(e, v, sites.sites[row], sites, place.channel);
      } else if (e.form == Form::kInt8) {
        uint32_t words[Run / 4];
#pragma unroll
        for (int i = 0; i < Run; i += 4) {
          uint32_t bits[4];
#pragma unroll
          for (int k = 0; k < 4; ++k)
            bits[k] = __float_as_uint(__fadd_rn(clamped(__fmul_rn(v[i + k], factor)), kRounder));
          words[i / 4] = __byte_perm(__byte_perm(bits[0], bits[1], 0x0040),
                                     __byte_perm(bits[2], bits[3], 0x0040), 0x5410);
        }
        store_words(out + place.channel, words);
      } else if (e.form == Form::kHalf) {
        uint32_t words[Run / 2];
#pragma unroll
        for (int i = 0; i < Run; i += 2) {
          const __half2 two = __floats2half2_rn(v[i], v[i + 1]);
          words[i / 2] = *reinterpret_cast<const uint32_t*>(&two);
        }
        store_words(out + place.channel * 2, words);
      } else {
        uint32_t words[Run];
#pragma unroll
        for (int i = 0; i < Run; ++i) words[i] = __float_as_uint(v[i]);
        store_words(out + place.channel * 4, words);
      }
    }
    stored = max(stored, once);
  }
  lost.stored += stored;
}

/// int8 rows from int8 products, int8 residuals at most: nothing can be lost, and little is to be decided.
template <int Fragments>
__device__ __forceinline__ void finish_int8_rows(const FinishView& f, const int32_t (&sums)[Fragments][4],
                                                 const float* scale, const float* bias,
                                                 const LaneResidual<Fragments * 2>& residual,
                                                 const LanePlace& place) {
  constexpr int kRun = Fragments * 2;
  LaneValues<kRun> y;
  const float floor = f.relu ? 0.0f : -INFINITY;
#pragma unroll
  for (int i = 0; i < kRun; i += 4) {
    const float4 b = *reinterpret_cast<const float4*>(bias + i), s = *reinterpret_cast<const float4*>(scale + i);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      y[half][i] = fmaxf(__fmaf_rn(float(sums[i / 2][half * 2]), s.x, b.x), floor);
      y[half][i + 1] = fmaxf(__fmaf_rn(float(sums[i / 2][half * 2 + 1]), s.y, b.y), floor);
      y[half][i + 2] = fmaxf(__fmaf_rn(float(sums[i / 2 + 1][half * 2]), s.z, b.z), floor);
      y[half][i + 3] = fmaxf(__fmaf_rn(float(sums[i / 2 + 1][half * 2 + 1]), s.w, b.w), floor);
    }
  }
  if (f.residual.kind == Operand::kInt8) add_int8<kRun>(f.residual, y, residual);
  for (int32_t which = 0; which < f.emission_count; ++which) {
    const EmissionView& e = f.emissions[which];
    if (place.channel >= e.columns) continue;
    // max(max(y, 0) * factor, -128) is max(y * factor, 0): factors are positive.
    const float factor = e.factor, lowest = e.relu ? 0.0f : -128.0f;
    char* const out = static_cast<char*>(e.out) + int64_t(place.row) * e.stride + place.channel;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t words[kRun / 4];
#pragma unroll
      for (int i = 0; i < kRun; i += 4) {
        uint32_t bits[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const float v = fminf(fmaxf(__fmul_rn(y[half][i + k], factor), lowest), 127.0f);
          bits[k] = __float_as_uint(__fadd_rn(v, kRounder));
        }
        words[i / 4] = __byte_perm(__byte_perm(bits[0], bits[1], 0x0040), __byte_perm(bits[2], bits[3], 0x0040),
                                   0x5410);
      }
      if (place.exists(half)) store_words(out + half * 8 * e.stride, words);
    }
  }
}

/// The lane's residual in float16, added to values that are float16 too.
template <int Run>
__device__ __forceinline__ void add_half(const ResidualView& r, LaneValues<Run>& y, const LanePlace& place) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!place.exists(half)) continue;
    uint32_t words[Run / 2];
    load_words(words, static_cast<const char*>(r.other) + int64_t(place.row + 8 * half) * r.stride +
                          place.channel * 2);
#pragma unroll
    for (int i = 0; i < Run; i += 2) {
      const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&words[i / 2]));
      y[half][i] = __fadd_rn(y[half][i], two.x);
      y[half][i + 1] = __fadd_rn(y[half][i + 1], two.y);
    }
  }
}

/// One form, float16 rows, from float16 products, float16 residuals at most.
template <int Fragments>
__device__ __forceinline__ void finish_half_rows(const FinishView& f, const float (&sums)[Fragments][4],
                                                 const float* bias, const LanePlace& place, Lost& lost) {
  constexpr int kRun = Fragments * 2;
  const EmissionView& e = f.emissions[0];
  if (place.channel >= e.columns) return;
  LaneValues<kRun> y;
  const float floor = f.relu ? 0.0f : -INFINITY, lowest = e.relu ? 0.0f : -INFINITY;
#pragma unroll
  for (int i = 0; i < kRun; i += 2) {
    const float2 b = *reinterpret_cast<const float2*>(bias + i);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      y[half][i] = fmaxf(__fadd_rn(sums[i / 2][half * 2], b.x), floor);
      y[half][i + 1] = fmaxf(__fadd_rn(sums[i / 2][half * 2 + 1], b.y), floor);
    }
  }
  if (f.residual.kind == Operand::kHalf) {
    round_all<kRun>(y, place, lost.before_add);
    add_half<kRun>(f.residual, y, place);
  }
  char* const out = static_cast<char*>(e.out) + int64_t(place.row) * e.stride + place.channel * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t words[kRun / 2];
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < kRun; i += 2) {
      const float low = fmaxf(y[half][i], lowest), high = fmaxf(y[half][i + 1], lowest);
      largest = fmaxf(largest, fmaxf(fabsf(low), fabsf(high)));
      const __half2 two = __floats2half2_rn(low, high);
      words[i / 2] = *reinterpret_cast<const uint32_t*>(&two);
    }
    if (!place.exists(half)) continue;
    store_words(out + half * 8 * e.stride, words);
    if (!(largest < kHalfLimit)) {  // rare
#pragma unroll
      for (int i = 0; i < kRun; ++i) lost.stored += !(fabsf(fmaxf(y[half][i], lowest)) < kHalfLimit);
    }
  }
}

template <typename T, FinishKind Kind, int Fragments, typename Sum>
__device__ __forceinline__ void finish_tile(const FinishView& f, const Sum (&sums)[Fragments][4],
                                            const float* scale, const float* bias,
                                            const LaneResidual<Fragments * 2>& residual, const SitesView& sites,
                                            const LanePlace& place, Lost& lost) {
  if constexpr (Kind == FinishKind::kInt8Rows) {
    finish_int8_rows(f, sums, scale, bias, residual, place);
  } else if constexpr (Kind == FinishKind::kHalfRows) {
    finish_half_rows(f, sums, bias, place, lost);
  } else {
    LaneValues<Fragments * 2> y;
    finish_sums<T>(f, sums, y, scale, bias, residual, place, lost);
    emit_forms<Fragments * 2>(f, y, sites, place, lost);
  }
}

}  // namespace scn::cuda
