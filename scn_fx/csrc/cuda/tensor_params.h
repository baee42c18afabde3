// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/convolution.h"

namespace scn::cuda {

struct TensorParams {
  MapView map;
  const char* x;
  int32_t x_stride;      // bytes
  int32_t passes;        // of up to 128 bytes of each row
  int32_t chunk_shift;   // log2 of the 16-byte chunks of a row in one pass
  int32_t steps;         // 32-byte steps per pass: what pack_fragments packs by
  const uint4* weights;  // as packed by pack_fragments, or by pack_blocks for Hopper (weights.cpp)
  FinishView finish;
};

void launch_tensor_int8(TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream);
void launch_tensor_half(TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream);

#if defined(SCN_FX_HOPPER)
constexpr bool kHopperBuilt = true;
#else
constexpr bool kHopperBuilt = false;
#endif
/// Weights must be packed for wgmma. False if the layer does not fit into shared memory.
bool launch_hopper_int8(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream);
bool launch_hopper_half(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream);

}  // namespace scn::cuda
