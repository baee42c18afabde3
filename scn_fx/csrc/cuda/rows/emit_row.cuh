// SPDX-License-Identifier: Apache-2.0
// What a thread that has a whole row stores of it.
#pragma once

#include "core/types.h"
#include "cuda/convolution/put.cuh"
#include "cuda/convolution/value_finish.cuh"

namespace scn::cuda {

/// Stores `value(column)` in every form of the finish, whole padded rows. Counts what does not fit in float16
/// once per value.
template <typename Value>
__device__ __forceinline__ void emit_row(const FinishView& f, int32_t row, const Value& value, Lost& lost) {
  for (int32_t which = 0; which < f.emission_count; ++which) {
    const EmissionView& e = f.emissions[which];
    const int32_t element = element_bytes(e.type), per_chunk = 16 / element;
    char* const out = static_cast<char*>(e.out) + int64_t(row) * e.stride;
    for (int32_t first = 0; first < e.columns; first += per_chunk) {
      uint32_t chunk[4] = {0, 0, 0, 0};
#pragma unroll
      for (int32_t i = 0; i < 16; ++i) {
        if (i >= per_chunk || first + i >= f.channels) break;
        int32_t once = 0;
        const float v = emitted(e, value(first + i), first + i, once);
        if (which == 0) lost.stored += once;
        put(chunk, e.type, i, v);
      }
      *reinterpret_cast<uint4*>(out + first * element) = make_uint4(chunk[0], chunk[1], chunk[2], chunk[3]);
    }
  }
}

/// How stored rows are read value by value (other_operand).
__device__ __forceinline__ ResidualView operand_of(const char* rows, ElementType type, int32_t stride) {
  ResidualView view{};
  view.other = rows;
  view.type = type;
  view.stride = stride;
  return view;
}

}  // namespace scn::cuda
