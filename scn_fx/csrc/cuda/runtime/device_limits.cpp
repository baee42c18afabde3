// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/device_limits.h"

#include <cuda_runtime_api.h>

#include <map>
#include <mutex>

#include "cuda/runtime/check.h"

namespace scn::cuda {
namespace {

int32_t attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "reading the device's limits");
  return value;
}

}  // namespace

const DeviceLimits& device_limits(int device) {
  static std::mutex mutex;
  static std::map<int, DeviceLimits> known;  // entries stay where they are
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(device);
  if (found != known.end()) return found->second;
  DeviceLimits limits;
  limits.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device);
  limits.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  limits.architecture = 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
                        attribute(cudaDevAttrComputeCapabilityMinor, device);
  limits.early_launch = limits.architecture >= 90;
  return known[device] = limits;
}

const DeviceLimits& current_limits() {
  int device = 0;
  check(cudaGetDevice(&device), "asking for the device");
  return device_limits(device);
}

}  // namespace scn::cuda
