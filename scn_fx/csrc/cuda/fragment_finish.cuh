// SPDX-License-Identifier: Apache-2.0
// The finish of tensor-core sums: one warp takes 16 rows of them from registers to memory.
#pragma once

#include "cuda/finish.cuh"
#include "cuda/views.h"

namespace scn::cuda {

__host__ __device__ constexpr int32_t form_size(Form form) {
  return form == Form::kInt8 ? 1 : form == Form::kHalf ? 2 : 4;
}

/// Bytes of a warp's stage for 16 rows of `columns` stored numbers of up to `element` bytes. Rows are shifted by 16
/// bytes against each other: lanes of one column meet different banks.
__host__ __device__ constexpr int32_t stage_stride(int32_t columns, int32_t element) { return columns * element + 16; }
__host__ __device__ constexpr int32_t stage_bytes(int32_t columns, int32_t element) {
  return 16 * stage_stride(columns, element);
}

/// Where the finish of a fragment finds the Add's other operand: rows of the fragment in shared memory, or null.
struct StagedResidual {
  const char* rows;
  int32_t stride;
};

/// Two neighbouring elements of the other operand.
__device__ __forceinline__ float2 residual_pair(const ResidualView& r, const char* row, int32_t column) {
  if (r.kind == Operand::kInt8) {
    const char2 v = *reinterpret_cast<const char2*>(row + column);
    return make_float2(float(int8_t(v.x)), float(int8_t(v.y)));
  }
  if (r.kind == Operand::kHalf) return __half22float2(*reinterpret_cast<const __half2*>(row + column * 2));
  return *reinterpret_cast<const float2*>(row + column * 4);
}

/// Sums (fragments of 8 columns, laid out as mma.m16n8 does) become y: scale, bias, activation, Add.
/// `row` is the output row of the fragment's row 0, `rows` the number of output rows, `column` the first column.
template <typename T, int Fragments, typename Sum>
__device__ __forceinline__ void finish_sums(const FinishView& f, const Sum (&sums)[Fragments][4],
                                            float (&y)[Fragments][4], int32_t row, int32_t rows, int32_t column,
                                            const StagedResidual& staged, Lost& lost) {
  const int32_t lane = threadIdx.x & 31, own_row = row + (lane >> 2);
#pragma unroll
  for (int n = 0; n < Fragments; ++n) {
    const int32_t at = column + n * 8 + (lane & 3) * 2;
    const float2 bias = __ldg(reinterpret_cast<const float2*>(f.bias + at));
    float2 scale = make_float2(0.0f, 0.0f);
    if (sizeof(T) == 1) scale = __ldg(reinterpret_cast<const float2*>(f.scale + at));
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      float v[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float sum = float(sums[n][pair * 2 + i]), b = i ? bias.y : bias.x;
        v[i] = sizeof(T) == 1 ? __fmaf_rn(sum, i ? scale.y : scale.x, b) : __fadd_rn(sum, b);
        if (f.relu) v[i] = relu(v[i]);
      }
      const int32_t out = own_row + pair * 8;
      const bool real = out < rows;
      if (f.through_half) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          int32_t beyond = 0;
          v[i] = through_half(v[i], beyond);
          if (real && at + i < f.channels) lost.before_add += beyond;
        }
      }
      if (f.residual.kind != Operand::kNone && real) {
        const char* const other =
            staged.rows ? staged.rows + int64_t((lane >> 2) + pair * 8) * staged.stride
                        : static_cast<const char*>(f.residual.other) + int64_t(out) * f.residual.stride;
        const float2 pair_of = residual_pair(f.residual, other, at);
        int32_t before = lost.before_add;
        v[0] = add_operands(f.residual, v[0], pair_of.x, false, lost);
        v[1] = add_operands(f.residual, v[1], pair_of.y, false, lost);
        if (at >= f.channels) lost.before_add = before;
      }
      // What lies beyond the last channel or the last row is stored as zero, and not counted as lost.
      y[n][pair * 2] = real && at < f.channels ? v[0] : 0.0f;
      y[n][pair * 2 + 1] = real && at + 1 < f.channels ? v[1] : 0.0f;
    }
  }
}

/// Puts one form of y on the warp's stage.
template <Form form, int Fragments>
__device__ __forceinline__ void stage_form(const EmissionView& e, const float (&y)[Fragments][4], char* stage,
                                           int32_t& lost) {
  constexpr int32_t kElement = form_size(form), kStride = stage_stride(Fragments * 8, kElement);
  const int32_t lane = threadIdx.x & 31;
#pragma unroll
  for (int n = 0; n < Fragments; ++n) {
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      float v[2] = {y[n][pair * 2], y[n][pair * 2 + 1]};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (e.relu) v[i] = relu(v[i]);
        if (e.through_half) v[i] = through_half(v[i], lost);
      }
      char* const to = stage + ((lane >> 2) + pair * 8) * kStride + (n * 8 + (lane & 3) * 2) * kElement;
      if (form == Form::kInt8) {
        *reinterpret_cast<char2*>(to) = make_char2(int8_t(__float2int_rn(quantised(__fmul_rn(v[0], e.factor)))),
                                                   int8_t(__float2int_rn(quantised(__fmul_rn(v[1], e.factor)))));
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
__device__ __forceinline__ void store_staged(const EmissionView& e, const char* stage, int32_t row, int32_t rows,
                                             int32_t column) {
  const int32_t element = form_size(e.form), stride = stage_stride(Columns, element);
  const int32_t chunks = min(Columns, e.columns - column) * element / 16;
  if (chunks <= 0) return;
  const int32_t present = min(rows - row, 16);
  char* const out = static_cast<char*>(e.out) + int64_t(row) * e.stride + column * element;
  for (int32_t i = threadIdx.x & 31; i < present * chunks; i += 32) {
    const int32_t r = i / chunks, chunk = i - r * chunks;
    *reinterpret_cast<uint4*>(out + int64_t(r) * e.stride + chunk * 16) =
        *reinterpret_cast<const uint4*>(stage + r * stride + chunk * 16);
  }
}

/// Writes the staged rows to the cells of a dense map. Lanes follow the rows: sites that follow each other often lie
/// side by side in the map.
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
  for (int32_t which = 0; which < f.emission_count; ++which) {
    const EmissionView& e = f.emissions[which];
    int32_t once = 0;
    __syncwarp();
    if (e.form == Form::kInt8) {
      stage_form<Form::kInt8>(e, y, stage, once);
    } else if (e.form == Form::kHalf) {
      stage_form<Form::kHalf>(e, y, stage, once);
    } else {
      stage_form<Form::kFloat>(e, y, stage, once);
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

}  // namespace scn::cuda
