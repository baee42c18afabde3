// SPDX-License-Identifier: Apache-2.0
// Launching the tensor-core convolution. One file per type includes this, so that they compile side by side.
#pragma once

#include <algorithm>

#include "cuda/convolution/tensor_convolution.cuh"
#include "cuda/runtime/launch.h"

namespace scn::cuda {

template <typename T, int N, int Offsets, int Parts, bool Resident, FinishKind Kind>
bool launch_tensor_as(const TensorParams& p, int32_t column_blocks, const DeviceLimits& limits,
                      cudaStream_t stream) {
  using Shape = TensorShape<N, Parts>;
  const auto kernel = tensor_convolution<T, N, Offsets, Parts, Resident, Kind>;
  const auto up = [](int32_t n) { return (n + 127) / 128 * 128; };
  constexpr int32_t kBlock = Shape::kBlock, kSpare = (Parts == 1 ? kBlock : 1) * Offsets;
  const int32_t volume = p.map.geometry.volume, units = (p.units + kBlock - 1) / kBlock * kBlock;
  const int32_t weights = Resident ? units * Parts * kPartBytes * N : 0;
  TensorLayout l{};
  l.scale_at = up(weights);
  l.map_at = l.scale_at + up(2 * N * 4);
  l.bases = (volume + kSpare) * kWarpSites * 2;
  l.map = up(l.bases + (volume + kSpare) * 4);
  int32_t threads = Shape::kThreads;
  const auto total = [&] { return l.map_at + threads / 32 * l.map; };
  while (total() > limits.shared_bytes && threads > 32) threads -= 32;
  if (total() > limits.shared_bytes) return false;
  l.total = total();
  const void* const symbol = reinterpret_cast<const void*>(kernel);
  allow_shared(symbol, l.total, limits);
  const int32_t items = (p.map.output.capacity + kWarpSites - 1) / kWarpSites, warps = threads / 32;
  const int32_t together = blocks_per_multiprocessor(symbol, threads, l.total) * limits.multiprocessors;
  const int32_t blocks = std::min((items + warps - 1) / warps, std::max(1, together / column_blocks));
  launch_early(kernel, dim3(uint32_t(blocks), uint32_t(column_blocks)), threads, l.total, limits, stream, p,
               l);
  return true;
}

template <typename T, int N, int Offsets, int Parts>
bool launch_tensor_narrow(const TensorParams& p, const DeviceLimits& limits, cudaStream_t stream) {
  constexpr FinishKind kUsual = sizeof(T) == 1 ? FinishKind::kInt8Rows : FinishKind::kHalfRows;
  constexpr FinishKind kAny = FinishKind::kAny;
  // Weights that leave room for two blocks.
  if (int64_t(p.units) * Parts * kPartBytes * N <= limits.shared_bytes / 4) {
    if (finish_kind<T>(p.finish) == kUsual)
      return launch_tensor_as<T, N, Offsets, Parts, true, kUsual>(p, 1, limits, stream);
    return launch_tensor_as<T, N, Offsets, Parts, true, kAny>(p, 1, limits, stream);
  }
  return launch_tensor_as<T, N, Offsets, Parts, false, kAny>(p, 1, limits, stream);
}

template <typename T, int Offsets, int Parts>
bool launch_tensor_unit(const TensorParams& p, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream) {
  constexpr FinishKind kUsual = sizeof(T) == 1 ? FinishKind::kInt8Rows : FinishKind::kHalfRows;
  constexpr FinishKind kAny = FinishKind::kAny;
  if (padded == 16) return launch_tensor_narrow<T, 16, Offsets, Parts>(p, limits, stream);
  if (padded == 32) return launch_tensor_narrow<T, 32, Offsets, Parts>(p, limits, stream);
  const int32_t column_blocks = padded / kLargestBlock;
  if (finish_kind<T>(p.finish) == kUsual)
    return launch_tensor_as<T, kLargestBlock, Offsets, Parts, false, kUsual>(p, column_blocks, limits,
                                                                             stream);
  return launch_tensor_as<T, kLargestBlock, Offsets, Parts, false, kAny>(p, column_blocks, limits, stream);
}

template <typename T>
void launch_tensor(const TensorParams& p, int32_t padded, const DeviceLimits& limits, cudaStream_t stream) {
  const bool done = p.x_stride == 16   ? launch_tensor_unit<T, 4, 1>(p, padded, limits, stream)
                    : p.x_stride == 32 ? launch_tensor_unit<T, 2, 1>(p, padded, limits, stream)
                    : p.x_stride == 64 ? launch_tensor_unit<T, 1, 1>(p, padded, limits, stream)
                                       : launch_tensor_unit<T, 1, 2>(p, padded, limits, stream);
  if (!done) {
    fail(ErrorKind::kArgument, "A layer's kernel has ", p.map.geometry.volume,
         " offsets, more than this device has shared memory for. Run it on the CPU.");
  }
}

}  // namespace scn::cuda
