// SPDX-License-Identifier: Apache-2.0
// Copies between host and device, and order between streams, for callers without CUDA headers.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "cuda/backend.h"
#include "cuda/check.h"
#include "cuda/device_guard.h"
#include "sizes.h"

namespace scn {

using cuda::check;
using cuda::DeviceGuard;

void cuda_to_host(int device, void* host, const void* data, int64_t bytes, void* stream) {
  if (bytes == 0) return;
  const DeviceGuard guard(device);
  check(cudaMemcpyAsync(host, data, size_t(bytes), cudaMemcpyDeviceToHost, cudaStream_t(stream)),
        "copying a result to the host");
  check(cudaStreamSynchronize(cudaStream_t(stream)), "copying a result to the host");
}

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

void cuda_free(int device, void* data) noexcept {
  int before = 0;
  if (cudaGetDevice(&before) == cudaSuccess && before != device) cudaSetDevice(device);
  cudaFree(data);
  if (before != device) cudaSetDevice(before);
  cudaGetLastError();  // at exit the driver may be gone already
}

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

CudaStaging::~CudaStaging() {
  for (void* memory : memory_) {
    if (memory) cuda_free(device_, memory);
  }
}

const void* CudaStaging::upload(int slot, const void* host, int64_t bytes, void* stream) {
  const DeviceGuard guard(device_);
  if (bytes > capacity_[slot]) {
    if (memory_[slot]) check(cudaFree(memory_[slot]), "freeing an upload buffer");  // waits for its readers
    memory_[slot] = nullptr;
    capacity_[slot] = 0;
    const Size grown = Size(bytes) + bytes / 4;
    check(cudaMalloc(&memory_[slot], grown.count()), "allocating an upload buffer");
    capacity_[slot] = grown.value();
  }
  if (bytes > 0) {
    check(cudaMemcpyAsync(memory_[slot], host, size_t(bytes), cudaMemcpyHostToDevice, cudaStream_t(stream)),
          "copying a frame to the device");
    // Pageable memory has been read when the call returns, page-locked memory has not.
    check(cudaStreamSynchronize(cudaStream_t(stream)), "copying a frame to the device");
  }
  return memory_[slot];
}

}  // namespace scn
