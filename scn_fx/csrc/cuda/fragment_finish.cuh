// SPDX-License-Identifier: Apache-2.0
// The finish of tensor-core sums: one warp takes 16 rows of them from registers to memory.
#pragma once

#include "cuda/finish.cuh"
#include "cuda/views.h"

namespace scn::cuda {

__host__ __device__ constexpr int32_t form_size(Form form) {
  return form == Form::kInt8 ? 1 : form == Form::kHalf ? 2 : 4;
}

/// Bytes of a warp's stage for 16 rows of `columns` stored numbers of up to `element` bytes. Rows are shifted
/// by 16 bytes against each other: lanes of one column meet different banks.
__host__ __device__ constexpr int32_t stage_stride(int32_t columns, int32_t element) {
  return columns * element + 16;
}
__host__ __device__ constexpr int32_t stage_bytes(int32_t columns, int32_t element) {
  return 16 * stage_stride(columns, element);
}

/// Where the finish of a fragment finds the Add's other operand: rows of the fragment in shared memory, or
/// null.
struct StagedResidual {
  const char* rows;
  int32_t stride;
};

/// v rounded to the nearest integer, ties to even, for |v| < 2^22: adding 1.5 * 2^23 leaves no bits for a
/// fraction, and the sum's low bits are the integer in two's complement.
constexpr float kRounder = 12582912.0f;

__device__ __forceinline__ float clamped(float v) { return fminf(fmaxf(v, -128.0f), 127.0f); }
__device__ __forceinline__ float quantised_fast(float v) {
  return __fsub_rn(__fadd_rn(clamped(v), kRounder), kRounder);
}

/// Two neighbouring elements of the other operand. From global memory they come past the first-level cache: a
/// block that started before the layer before had ended may find old lines there.
template <Operand kind>
__device__ __forceinline__ float2 residual_pair(const char* row, int32_t column, bool global) {
  if (kind == Operand::kInt8) {
    const uint16_t* const at = reinterpret_cast<const uint16_t*>(row + column);
    const uint32_t v = global ? __ldcg(at) : *at;
    return make_float2(float(int8_t(v & 0xff)), float(int8_t(v >> 8)));
  }
  if (kind == Operand::kHalf) {
    const uint32_t* const at = reinterpret_cast<const uint32_t*>(row + column * 2);
    const uint32_t v = global ? __ldcg(at) : *at;
    return __half22float2(*reinterpret_cast<const __half2*>(&v));
  }
  const float2* const at = reinterpret_cast<const float2*>(row + column * 4);
  return global ? __ldcg(at) : *at;
}

/// Rounds all values to float16; counts those that do not fit, in rows that exist.
template <int Fragments>
__device__ __forceinline__ void round_all(float (&y)[Fragments][4], bool low_row, bool high_row,
                                          int32_t& lost) {
  float largest = 0.0f;
#pragma unroll
  for (int n = 0; n < Fragments; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(y[n][i]));
  }
  if (!(largest < kHalfLimit)) {  // rare
    for (int n = 0; n < Fragments; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) lost += (i < 2 ? low_row : high_row) && !(fabsf(y[n][i]) < kHalfLimit);
    }
  }
#pragma unroll
  for (int n = 0; n < Fragments; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) y[n][i] = __half2float(__float2half_rn(y[n][i]));
  }
}

template <Operand kind, int Fragments>
__device__ __forceinline__ void add_residual(const ResidualView& r, float (&y)[Fragments][4], const char* low,
                                             const char* high, int32_t column, bool global) {
  const float self_factor = r.self_factor, self_scale = r.self_scale, other_scale = r.other_scale;
  const bool second = r.self_is_second;
#pragma unroll
  for (int n = 0; n < Fragments; ++n) {
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const float2 other = residual_pair<kind>(pair ? high : low, column + n * 8, global);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& v = y[n][pair * 2 + i];
        const float o = i ? other.y : other.x;
        if (kind == Operand::kInt8) {
          const float q = quantised_fast(__fmul_rn(v, self_factor));
          // fma(first operand, its scale, second operand * its scale)
          v = __fmaf_rn(second ? o : q, second ? other_scale : self_scale,
                        __fmul_rn(second ? q : o, second ? self_scale : other_scale));
        } else {
          v = __fadd_rn(v, o);
        }
      }
    }
  }
}

/// Sums (fragments of 8 columns, laid out as mma.m16n8 does) become y: scale, bias, activation, Add.
/// `row` is the output row of the fragment's row 0, `rows` the number of output rows, `column` the first
/// column. Padded channels come out as zero by themselves: their weights, scales, biases and residuals are
/// zero. Takes the fragments from `First` on, of which `column` is the first column.
template <typename T, int First, int Fragments, int All, typename Sum>
__device__ __forceinline__ void finish_sums(const FinishView& f, const Sum (&sums)[All][4],
                                            float (&y)[Fragments][4], int32_t row, int32_t rows,
                                            int32_t column, const StagedResidual& staged, Lost& lost) {
  const int32_t lane = threadIdx.x & 31, at = column + (lane & 3) * 2, in_fragment = lane >> 2;
  const int32_t low_row = row + in_fragment, high_row = low_row + 8;
  const float floor = f.relu ? 0.0f : -INFINITY;
#pragma unroll
  for (int n = 0; n < Fragments; ++n) {
    const float2 bias = __ldg(reinterpret_cast<const float2*>(f.bias + at + n * 8));
    float2 scale = make_float2(1.0f, 1.0f);
    if (sizeof(T) == 1) scale = __ldg(reinterpret_cast<const float2*>(f.scale + at + n * 8));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float b = i & 1 ? bias.y : bias.x, sum = float(sums[First + n][i]);
      y[n][i] =
          fmaxf(sizeof(T) == 1 ? __fmaf_rn(sum, i & 1 ? scale.y : scale.x, b) : __fadd_rn(sum, b), floor);
    }
  }
  if (f.through_half) round_all(y, low_row < rows, high_row < rows, lost.before_add);
  const ResidualView& r = f.residual;
  if (r.kind == Operand::kNone) return;
  // Rows behind the last one read the last one's residual: their values are not stored.
  const int32_t last = rows - 1 - row;
  const char* const base =
      staged.rows ? staged.rows : static_cast<const char*>(r.other) + int64_t(row) * r.stride;
  const char* const low = base + min(in_fragment, last) * r.stride;
  const char* const high = base + min(in_fragment + 8, last) * r.stride;
  if (last < 0) return;
  const bool global = staged.rows == nullptr;
  if (r.kind != Operand::kInt8 && r.through_half)
    round_all(y, low_row < rows, high_row < rows, lost.before_add);
  if (r.kind == Operand::kInt8) {
    add_residual<Operand::kInt8>(r, y, low, high, at, global);
  } else if (r.kind == Operand::kHalf) {
    add_residual<Operand::kHalf>(r, y, low, high, at, global);
  } else {
    add_residual<Operand::kFloat>(r, y, low, high, at, global);
  }
}

/// Puts one form of y on the warp's stage.
template <Form form, int Fragments>
__device__ __forceinline__ void stage_form(const EmissionView& e, const float (&y)[Fragments][4], char* stage,
                                           bool low_row, bool high_row, int32_t& lost) {
  constexpr int32_t kElement = form_size(form), kStride = stage_stride(Fragments * 8, kElement);
  const int32_t lane = threadIdx.x & 31;
  const float floor = e.relu ? 0.0f : -INFINITY, factor = e.factor;
  char* const low = stage + (lane >> 2) * kStride + (lane & 3) * 2 * kElement;
  if (form == Form::kInt8 && !e.through_half) {
#pragma unroll
    for (int n = 0; n < Fragments; ++n) {
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        uint32_t bits[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float v = __fmul_rn(fmaxf(y[n][pair * 2 + i], floor), factor);
          bits[i] = __float_as_uint(__fadd_rn(clamped(v), kRounder));
        }
        *reinterpret_cast<uint16_t*>(low + pair * 8 * kStride + n * 8) =
            uint16_t(__byte_perm(bits[0], bits[1], 0x0040));
      }
    }
    return;
  }
  const bool through = e.through_half;
#pragma unroll
  for (int n = 0; n < Fragments; ++n) {
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      char* const to = low + pair * 8 * kStride + n * 8 * kElement;
      float v[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        v[i] = fmaxf(y[n][pair * 2 + i], floor);
        if (through) {
          lost += (pair ? high_row : low_row) && !(fabsf(v[i]) < kHalfLimit);
          if (form != Form::kHalf) v[i] = __half2float(__float2half_rn(v[i]));
        }
        if (form == Form::kInt8) v[i] = __fadd_rn(clamped(__fmul_rn(v[i], factor)), kRounder);
      }
      if (form == Form::kInt8) {
        *reinterpret_cast<uint16_t*>(to) =
            uint16_t(__byte_perm(__float_as_uint(v[0]), __float_as_uint(v[1]), 0x0040));
      } else if (form == Form::kHalf) {
        *reinterpret_cast<__half2*>(to) = __floats2half2_rn(v[0], v[1]);
      } else {
        *reinterpret_cast<float2*>(to) = make_float2(v[0], v[1]);
      }
    }
  }
}

/// Copies the staged rows to memory, 16 bytes per lane.
template <int Columns>
__device__ __forceinline__ void store_staged(const EmissionView& e, const char* stage, int32_t row,
                                             int32_t rows, int32_t column) {
  const int32_t element = form_size(e.form), stride = stage_stride(Columns, element);
  const int32_t chunks = min(Columns, e.columns - column) * element / 16;
  if (chunks <= 0) return;
  const int32_t present = min(rows - row, 16);
  if ((chunks & (chunks - 1)) == 0) {  // all but a few widths
    const int32_t shift = __ffs(chunks) - 1, lane = threadIdx.x & 31;
    char* out = static_cast<char*>(e.out) + int64_t(row) * e.stride + column * element;
    for (int32_t i = lane; i < present << shift; i += 32) {
      const int32_t r = i >> shift, chunk = i & (chunks - 1);
      *reinterpret_cast<uint4*>(out + r * e.stride + chunk * 16) =
          *reinterpret_cast<const uint4*>(stage + r * stride + chunk * 16);
    }
    return;
  }
  char* const out = static_cast<char*>(e.out) + int64_t(row) * e.stride + column * element;
  for (int32_t i = threadIdx.x & 31; i < present * chunks; i += 32) {
    const int32_t r = i / chunks, chunk = i - r * chunks;
    *reinterpret_cast<uint4*>(out + int64_t(r) * e.stride + chunk * 16) =
        *reinterpret_cast<const uint4*>(stage + r * stride + chunk * 16);
  }
}

/// Writes the staged rows to the cells of a dense map. Lanes follow the rows: sites that follow each other
/// often lie side by side in the map.
template <int Columns>
__device__ __forceinline__ void store_dense(const EmissionView& e, const char* stage, const SitesView& sites,
                                            int32_t row, int32_t rows, int32_t column) {
  const int32_t lane = threadIdx.x & 31, r = lane & 15;
  if (row + r >= rows) return;
  const Site s = sites.sites[row + r];
  const int64_t cell = (int64_t(s.z) * sites.shape[1] + s.y) * sites.shape[2] + s.x;
  const int64_t at = (int64_t(s.batch) * e.columns + column) * e.cells + cell;
  const char* const from = stage + r * stage_stride(Columns, form_size(e.form));
  const int32_t columns = min(Columns, e.columns - column);
  for (int32_t c = lane >> 4; c < columns; c += 2) {
    const int64_t to = at + int64_t(c) * e.cells;
    if (e.form == Form::kHalf) {
      static_cast<uint16_t*>(e.out)[to] = reinterpret_cast<const uint16_t*>(from)[c];
    } else {
      static_cast<uint32_t*>(e.out)[to] = reinterpret_cast<const uint32_t*>(from)[c];
    }
  }
}

/// Stores every form of y. The stage belongs to this warp.
template <int Fragments>
__device__ __forceinline__ void emit_forms(const FinishView& f, const float (&y)[Fragments][4], char* stage,
                                           const SitesView& sites, int32_t row, int32_t rows, int32_t column,
                                           Lost& lost) {
  int32_t stored = 0;
  const int32_t low = row + ((threadIdx.x & 31) >> 2);
  const bool low_row = low < rows, high_row = low + 8 < rows;
  for (int32_t which = 0; which < f.emission_count; ++which) {
    const EmissionView& e = f.emissions[which];
    int32_t once = 0;
    __syncwarp();
    if (e.form == Form::kInt8) {
      stage_form<Form::kInt8>(e, y, stage, low_row, high_row, once);
    } else if (e.form == Form::kHalf) {
      stage_form<Form::kHalf>(e, y, stage, low_row, high_row, once);
    } else {
      stage_form<Form::kFloat>(e, y, stage, low_row, high_row, once);
    }
    stored = max(stored, once);
    __syncwarp();
    if (e.dense) {
      store_dense<Fragments * 8>(e, stage, sites, row, rows, column);
    } else {
      store_staged<Fragments * 8>(e, stage, row, rows, column);
    }
  }
  lost.stored += stored;
}

/// Finishes and stores fragments [First, All) of a warp's 16 rows, up to eight at a time: more would not
/// leave enough registers.
template <typename T, int First, int All, typename Sum>
__device__ __forceinline__ void finish_fragments(const FinishView& f, const Sum (&sums)[All][4], char* stage,
                                                 const SitesView& sites, int32_t row, int32_t rows,
                                                 int32_t column, const StagedResidual& staged, Lost& lost) {
  constexpr int kCount = All - First < 8 ? All - First : 8;
  float y[kCount][4];
  finish_sums<T, First>(f, sums, y, row, rows, column, staged, lost);
  emit_forms(f, y, stage, sites, row, rows, column, lost);
  if constexpr (First + kCount < All)
    finish_fragments<T, First + kCount>(f, sums, stage, sites, row, rows, column + kCount * 8, staged, lost);
}

}  // namespace scn::cuda
