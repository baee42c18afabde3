// SPDX-License-Identifier: Apache-2.0
// Launching the tensor-core convolution: which shape of block serves how many columns. One file per type
// includes this, so that they compile side by side.
#pragma once

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/tensor_convolution.cuh"

namespace scn::cuda {

template <typename T, int N, int WarpsM, int WarpsN, int SplitK, bool OneChunk>
void launch(TensorParams& p, int32_t column_blocks, const DeviceLimits& limits, cudaStream_t stream) {
  using Shape = TensorShape<T, N, WarpsM, WarpsN, SplitK>;
  const auto kernel = tensor_convolution<T, N, WarpsM, WarpsN, SplitK, OneChunk>;
  const int32_t row = 16 << p.chunk_shift;
  int32_t shared = std::max(
      {(p.map.list_capacity + 1) * row, row + Shape::kExchange, row + Shape::kWarps * Shape::kStage});
  shared = (shared + 15) / 16 * 16 + (p.map.geometry.volume + 1) * kTileRows * 2;
  const void* const symbol = reinterpret_cast<const void*>(kernel);
  allow_shared(symbol, shared, limits);
  const int32_t tiles = (p.map.output.capacity + kTileRows - 1) / kTileRows;
  const int32_t blocks = std::max(
      1,
      std::min(tiles, blocks_per_multiprocessor(symbol, Shape::kThreads, shared) * limits.multiprocessors));
  launch_early(kernel, dim3(uint32_t(blocks), uint32_t(column_blocks)), Shape::kThreads, shared, limits,
               stream, p);
}

template <typename T, int N, int WarpsM, int WarpsN, int SplitK>
void launch_chunks(TensorParams& p, int32_t column_blocks, const DeviceLimits& limits, cudaStream_t stream) {
  if (p.chunk_shift == 0) {
    launch<T, N, WarpsM, WarpsN, SplitK, true>(p, column_blocks, limits, stream);
  } else {
    launch<T, N, WarpsM, WarpsN, SplitK, false>(p, column_blocks, limits, stream);
  }
}

template <typename T>
void launch_tensor(TensorParams& p, int32_t padded, const DeviceLimits& limits, cudaStream_t stream) {
  switch (std::min(padded, 128)) {
    case 16:
      return launch_chunks<T, 16, 1, 1, 1>(p, 1, limits, stream);
    case 32:
      return launch_chunks<T, 32, 2, 1, 2>(p, 1, limits, stream);
    case 64:
      return launch_chunks<T, 64, 2, 1, 2>(p, 1, limits, stream);
    default:
      return launch_chunks<T, 128, 2, 2, 1>(p, padded / 128, limits, stream);
  }
}

}  // namespace scn::cuda
