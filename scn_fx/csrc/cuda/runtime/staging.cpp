// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/staging.h"

#include <cuda_runtime_api.h>

#include "core/sizes.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/device_guard.h"

namespace scn::cuda {

void copy_to_host(int device, void* host, const void* data, int64_t bytes, void* stream) {
  if (bytes == 0) return;
  const DeviceGuard guard(device);
  check(cudaMemcpyAsync(host, data, size_t(bytes), cudaMemcpyDeviceToHost, cudaStream_t(stream)),
        "copying a result to the host");
  check(cudaStreamSynchronize(cudaStream_t(stream)), "copying a result to the host");
}

void free_on(int device, void* data) noexcept {
  int before = 0;
  if (cudaGetDevice(&before) == cudaSuccess && before != device) cudaSetDevice(device);
  cudaFree(data);
  if (before != device) cudaSetDevice(before);
  cudaGetLastError();  // at exit the driver may be gone already
}

Staging::~Staging() {
  for (void* memory : memory_) {
    if (memory) free_on(device_, memory);
  }
}

const void* Staging::upload(int slot, const void* host, int64_t bytes, void* stream) {
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

}  // namespace scn::cuda
