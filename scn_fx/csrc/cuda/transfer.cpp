// SPDX-License-Identifier: Apache-2.0
// Copies between host and device, and order between streams, for callers without CUDA headers.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "core/sizes.h"
#include "cuda/backend.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/device_guard.h"
#include "cuda/runtime/staging.h"

namespace scn {

using cuda::check;
using cuda::DeviceGuard;

void* cuda_copy(int device, const void* data, int64_t bytes, void* stream) {
  const DeviceGuard guard(device);
  void* copy = nullptr;
  check(cudaMalloc(&copy, size_t(std::max<int64_t>(bytes, 1))), "allocating a result");
  const cudaError_t status =
      cudaMemcpyAsync(copy, data, size_t(bytes), cudaMemcpyDeviceToDevice, cudaStream_t(stream));
  if (status != cudaSuccess) cudaFree(copy);
  check(status, "copying a result");
  return copy;
}

void cuda_free(int device, void* data) noexcept { cuda::free_on(device, data); }

void cuda_order(int device, void* earlier, void* later) {
  if (earlier == later) return;
  const DeviceGuard guard(device);
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  cudaError_t status = cudaEventRecord(event, cudaStream_t(earlier));
  if (status == cudaSuccess) status = cudaStreamWaitEvent(cudaStream_t(later), event, 0);
  cudaEventDestroy(event);  // the driver keeps it until it has been met
  check(status, "ordering two streams");
}

}  // namespace scn
