// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution.h"

#include <algorithm>

#include "cuda/chain_convolution.cuh"
#include "cuda/tensor_params.h"

namespace scn::cuda {
namespace {

// Rows of a tile in shared memory: with 64 KiB, three blocks share a Hopper multiprocessor, and the widest tiles of
// LiDAR frames (about 430 rows of 128 bytes) fit.
constexpr int32_t kRowBudget = 64 * 1024, kSmallRowBudget = 36 * 1024;
constexpr int32_t kLargestList = 1024;

int32_t log2_of(int32_t n) {
  int32_t shift = 0;
  while (1 << shift < n) ++shift;
  return shift;
}

}  // namespace

DeviceLimits device_limits(int device) {
  DeviceLimits limits;
  check(cudaDeviceGetAttribute(&limits.multiprocessors, cudaDevAttrMultiProcessorCount, device),
        "reading the device's limits");
  check(cudaDeviceGetAttribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "reading the device's limits");
  return limits;
}

int32_t list_capacity(int32_t volume, int32_t row_bytes, const DeviceLimits& limits) {
  const int32_t row = std::min(row_bytes, 128);
  const int32_t budget = limits.shared_bytes >= 160 * 1024 ? kRowBudget : kSmallRowBudget;
  const int32_t most = (volume * kTileRows + 3) / 4 * 4;
  return std::max(2 * kTileRows, std::min({most, budget / row / 4 * 4, kLargestList}));
}

void convolve(const MapView& map, const void* x, const DeviceWeights& w, FinishView finish,
              const DeviceLimits& limits, cudaStream_t stream) {
  finish.scale = w.scale.data();
  finish.bias = w.bias.data();
  if (w.product == Product::kChainHalf || w.product == Product::kChainFloat) {
    return launch_chain(map, x, w, finish, limits, stream);
  }
  TensorParams p{};
  p.map = map;
  p.x = static_cast<const char*>(x);
  p.x_stride = w.in_bytes;
  p.passes = std::max(1, w.in_bytes / 128);
  p.chunk_shift = log2_of(std::min(w.in_bytes, 128) / 16);
  p.steps = (map.geometry.volume * (std::min(w.in_bytes, 128) / 16) + 1) / 2;
  p.weights = reinterpret_cast<const uint4*>(w.packed.data());
  p.finish = finish;
  if (w.product == Product::kTensorInt8) {
    launch_tensor_int8(p, w.padded, limits, stream);
  } else {
    launch_tensor_half(p, w.padded, limits, stream);
  }
}

}  // namespace scn::cuda
