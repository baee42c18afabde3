// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <set>
#include <utility>

#include "cuda/chain_convolution.cuh"
#include "cuda/convolution.h"
#include "cuda/launch.h"
#include "cuda/tensor_params.h"

namespace scn::cuda {
namespace {

// Entries of a tile's list. In LiDAR frames 64 output rows read up to about 430 distinct input rows in
// submanifold layers and 650 in strided ones; what does not fit is looked up again by every layer, slowly but
// right.
constexpr int32_t kLargestList = 512, kLargestStridedList = 704, kLargestOfWideRows = 448;
// Where shared memory is small, rows of a tile take at most this much.
constexpr int32_t kSmallRowBudget = 36 * 1024;

int32_t log2_of(int32_t n) {
  int32_t shift = 0;
  while (1 << shift < n) ++shift;
  return shift;
}

/// What the environment variable SCN_FX_CUDA_KERNELS says: the kernels of other GPUs also run on Hopper, for
/// tests.
bool generic_kernels_wanted() {
  const char* const text = std::getenv("SCN_FX_CUDA_KERNELS");
  const std::string kernels = text ? text : "";
  if (!kernels.empty() && kernels != "best" && kernels != "generic") {
    fail(ErrorKind::kArgument, "SCN_FX_CUDA_KERNELS must be 'best' or 'generic', got '", kernels, "'.");
  }
  return kernels == "generic";
}

}  // namespace

DeviceLimits device_limits(int device) {
  DeviceLimits limits;
  check(cudaDeviceGetAttribute(&limits.multiprocessors, cudaDevAttrMultiProcessorCount, device),
        "reading the device's limits");
  check(cudaDeviceGetAttribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "reading the device's limits");
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
        "reading the device's limits");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
        "reading the device's limits");
  limits.early_launch = major >= 9;
  limits.hopper = kHopperBuilt && major == 9 && minor == 0 && !generic_kernels_wanted();
  return limits;
}

int32_t list_capacity(const ConvGeometry& geometry, int32_t row_bytes, const DeviceLimits& limits) {
  const int32_t row = std::min(row_bytes, 128);
  const int32_t largest = row == 128      ? kLargestOfWideRows
                          : geometry.subm ? kLargestList
                                          : kLargestStridedList;
  int32_t most = std::min(geometry.volume() * kTileRows, largest);
  if (limits.shared_bytes < 160 * 1024) most = std::min(most, kSmallRowBudget / row);
  return std::max(2 * kTileRows, (most + 3) / 4 * 4);
}

void allow_shared(const void* kernel, int32_t bytes, const DeviceLimits& limits) {
  if (bytes > limits.shared_bytes) {
    fail(ErrorKind::kArgument, "A layer needs ", bytes, " bytes of shared memory, the device gives a block ",
         limits.shared_bytes, ". Its kernel has too many offsets for this device; run it on the CPU.");
  }
  static std::mutex mutex;
  static std::set<std::pair<int, const void*>> allowed;
  int device = 0;
  check(cudaGetDevice(&device), "asking for the device");
  std::lock_guard<std::mutex> lock(mutex);
  if (!allowed.insert({device, kernel}).second) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limits.shared_bytes),
        "asking for shared memory");
}

int32_t blocks_per_multiprocessor(const void* kernel, int32_t threads, int32_t shared_bytes) {
  int blocks = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, size_t(shared_bytes)),
        "asking for the occupancy");
  return std::max(1, blocks);
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
  if (w.hopper) {
    const bool done = w.product == Product::kTensorInt8 ? launch_hopper_int8(p, w.padded, limits, stream)
                                                        : launch_hopper_half(p, w.padded, limits, stream);
    if (!done)
      fail(ErrorKind::kArgument, "A layer does not fit into the shared memory that was planned for it.");
    return;
  }
  if (w.product == Product::kTensorInt8) {
    launch_tensor_int8(p, w.padded, limits, stream);
  } else {
    launch_tensor_half(p, w.padded, limits, stream);
  }
}

}  // namespace scn::cuda
