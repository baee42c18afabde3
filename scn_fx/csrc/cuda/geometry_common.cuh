// SPDX-License-Identifier: Apache-2.0
// What the geometry kernels share: tables of sets as kernel parameters, sums over a warp, sizes of launches.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/check.h"
#include "cuda/geometry.h"
#include "cuda/launch.h"
#include "cuda/lookup.cuh"

namespace scn::cuda {

// Tables of launches travel as kernel parameters, of which every device takes 4 KiB.
constexpr int kMaxSets = 24;

struct SetTable {
  int32_t count;
  SitesView set[kMaxSets];
};

inline SetTable table_of(const std::vector<SitesView>& sets) {
  if (sets.size() > size_t(kMaxSets)) {
    fail(ErrorKind::kArgument, "The CUDA backend runs networks with up to ", kMaxSets,
         " sets of sites, this has ", sets.size(), ". Run it on the CPU.");
  }
  SetTable table{};
  table.count = int32_t(sets.size());
  std::copy(sets.begin(), sets.end(), table.set);
  return table;
}

__device__ __forceinline__ int32_t warp_inclusive(int32_t v) {
  const int32_t lane = threadIdx.x & 31;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int32_t below = __shfl_up_sync(0xffffffffu, v, d);
    if (lane >= d) v += below;
  }
  return v;
}

__device__ __forceinline__ int32_t warp_sum(int32_t v) {
#pragma unroll
  for (int d = 16; d; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  return v;
}

__device__ __forceinline__ int32_t warp_min(int32_t v) {
#if __CUDA_ARCH__ >= 800
  return __reduce_min_sync(0xffffffffu, v);
#else
#pragma unroll
  for (int d = 16; d; d /= 2) v = min(v, __shfl_xor_sync(0xffffffffu, v, d));
  return v;
#endif
}

/// Of the current device.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&value, attribute, device), "reading the device's limits");
  return value;
}

inline int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }

/// For launch_early().
inline DeviceLimits launch_limits() {
  DeviceLimits limits;
  limits.multiprocessors = multiprocessors();
  limits.early_launch = device_attribute(cudaDevAttrComputeCapabilityMajor) >= 9;
  return limits;
}

inline uint32_t blocks_for(int64_t items, int64_t threads, int64_t most) {
  return uint32_t(std::max<int64_t>(1, std::min(most, (items + threads - 1) / threads)));
}

}  // namespace scn::cuda
