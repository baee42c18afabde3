// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/launch.h"

#include <mutex>
#include <set>
#include <utility>

#include "core/error.h"

namespace scn::cuda {

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

namespace {

cudaLaunchAttribute cluster_of(int32_t blocks) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = uint32_t(blocks);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  return attribute;
}

}  // namespace

int32_t blocks_in_clusters(const void* kernel, int32_t threads, int32_t shared_bytes, int32_t cluster) {
  cudaLaunchAttribute attribute = cluster_of(cluster);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(uint32_t(cluster));
  config.blockDim = dim3(uint32_t(threads));
  config.dynamicSmemBytes = size_t(shared_bytes);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "asking for the occupancy by clusters");
  return std::max(1, clusters) * cluster;
}

void launch_symbol(const void* kernel, dim3 grid, int32_t threads, int32_t shared_bytes, bool early,
                   cudaStream_t stream, void** parameters, int32_t cluster) {
  cudaLaunchAttribute attributes[2] = {};
  uint32_t count = 0;
  if (early) {
    cudaLaunchAttribute& attribute = attributes[count++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) attributes[count++] = cluster_of(cluster);
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(uint32_t(threads));
  config.dynamicSmemBytes = size_t(shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  check(cudaLaunchKernelExC(&config, kernel, parameters), "launching a kernel");
}

}  // namespace scn::cuda
