// SPDX-License-Identifier: Apache-2.0
// Stored numbers, 16 bytes at a time.
#pragma once

#include <cuda_fp16.h>

#include "core/element_type.h"

namespace scn::cuda {

/// Puts one stored number into a 16-byte chunk.
__device__ __forceinline__ void put(uint32_t (&chunk)[4], ElementType form, int32_t i, float v) {
  if (form == ElementType::kInt8) {
    chunk[i >> 2] |= (uint32_t(int32_t(v)) & 0xffu) << (8 * (i & 3));
  } else if (form == ElementType::kFloat16) {
    chunk[i >> 1] |= uint32_t(__half_as_ushort(__float2half_rn(v))) << (16 * (i & 1));
  } else {
    chunk[i] = __float_as_uint(v);
  }
}

}  // namespace scn::cuda
