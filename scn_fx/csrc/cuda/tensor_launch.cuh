// SPDX-License-Identifier: Apache-2.0
// Launching the tensor-core convolution. One file per type includes this, so that they compile side by side.
#pragma once

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/tensor_convolution.cuh"

namespace scn::cuda {

template <typename T, int N, int Offsets>
void launch_tensor_as(const TensorParams& p, int32_t column_blocks, const DeviceLimits& limits,
                      cudaStream_t stream) {
  const auto kernel = tensor_convolution<T, N, Offsets>;
  const int32_t tiles = (p.map.output.capacity + kTileRows - 1) / kTileRows;
  const int32_t together =
      blocks_per_multiprocessor(reinterpret_cast<const void*>(kernel), kTensorThreads, 0) * limits.multiprocessors;
  launch_early(kernel, dim3(uint32_t(std::min(tiles, together)), uint32_t(column_blocks)), kTensorThreads, 0,
               limits, stream, p);
}

template <typename T, int Offsets>
void launch_tensor_offsets(const TensorParams& p, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream) {
  if (padded == 16) return launch_tensor_as<T, 16, Offsets>(p, 1, limits, stream);
  if (padded == 32) return launch_tensor_as<T, 32, Offsets>(p, 1, limits, stream);
  launch_tensor_as<T, kLargestBlock, Offsets>(p, padded / kLargestBlock, limits, stream);
}

template <typename T>
void launch_tensor(const TensorParams& p, int32_t padded, const DeviceLimits& limits, cudaStream_t stream) {
  const int32_t offsets = unit_offsets(p.x_stride);
  if (offsets == 4) return launch_tensor_offsets<T, 4>(p, padded, limits, stream);
  if (offsets == 2) return launch_tensor_offsets<T, 2>(p, padded, limits, stream);
  launch_tensor_offsets<T, 1>(p, padded, limits, stream);
}

}  // namespace scn::cuda
