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

void convolve(const MapView& map, const void* x, const WeightsView& w, FinishView finish, bool after_maps,
              const DeviceLimits& limits, cudaStream_t stream) {
  finish.scale = w.scale;
  finish.bias = w.bias;
  if (w.product == Product::kChainHalf || w.product == Product::kChainFloat) {
    return launch_chain(map, x, w, finish, limits, stream);
  }
  TensorParams p{};
  p.map = map;
  p.x = static_cast<const char*>(x);
  p.x_stride = w.in_bytes;
  p.units = w.units;
  p.after_maps = after_maps;
  p.weights = reinterpret_cast<const uint4*>(w.packed);
  p.finish = finish;
  const bool int8 = w.product == Product::kTensorInt8;
  const auto launch = w.hopper ? (int8 ? launch_hopper_int8 : launch_hopper_half)
                               : (int8 ? launch_tensor_int8 : launch_tensor_half);
  launch(p, w.padded, limits, stream);
}

}  // namespace scn::cuda
