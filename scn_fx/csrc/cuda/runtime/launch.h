// SPDX-License-Identifier: Apache-2.0
// What launches of large kernels share.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/runtime/check.h"
#include "cuda/runtime/device_limits.h"

namespace scn::cuda {

/// Blocks of `threads` for so many items, between 1 and `most`.
inline uint32_t blocks_for(int64_t items, int64_t threads, int64_t most) {
  return uint32_t(std::max<int64_t>(1, std::min(most, (items + threads - 1) / threads)));
}

/// Allows a kernel as much shared memory as a block can have, once per device. Throws if `bytes` is more than
/// that.
void allow_shared(const void* kernel, int32_t bytes, const DeviceLimits& limits);

/// Blocks that a multiprocessor holds at a time, at least 1.
int32_t blocks_per_multiprocessor(const void* kernel, int32_t threads, int32_t shared_bytes);

/// Blocks that the device holds at a time in clusters of so many along x, at least one cluster's.
int32_t blocks_in_clusters(const void* kernel, int32_t threads, int32_t shared_bytes, int32_t cluster);

/// Launches a kernel by its symbol, with the addresses of its parameters; `early` as in launch_early;
/// `cluster`: blocks along x that run together.
void launch_symbol(const void* kernel, dim3 grid, int32_t threads, int32_t shared_bytes, bool early,
                   cudaStream_t stream, void** parameters, int32_t cluster = 1);

/// Launches a kernel that waits for its dependency itself: on devices that can, its blocks prepare themselves
/// while the kernel before ends.
template <typename... Parameters>
void launch_early(void (*kernel)(Parameters...), dim3 grid, int32_t threads, int32_t shared_bytes,
                  const DeviceLimits& limits, cudaStream_t stream, const Parameters&... parameters) {
  void* addresses[] = {const_cast<void*>(static_cast<const void*>(&parameters))...};
  launch_symbol(reinterpret_cast<const void*>(kernel), grid, threads, shared_bytes, limits.early_launch,
                stream, addresses);
}

}  // namespace scn::cuda
