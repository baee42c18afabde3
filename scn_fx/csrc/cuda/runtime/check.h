// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "core/error.h"

namespace scn::cuda {

/// Throws with CUDA's own text unless `status` is success. `what` says what was being done.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that was reported must not be met again by the next call
  if (status == cudaErrorInitializationError) {
    fail(ErrorKind::kArgument, "CUDA, ", what, ": ", cudaGetErrorString(status),
         " (cudaErrorInitializationError). CUDA does not work in the child of a fork of a process that used "
         "it: start processes with multiprocessing's 'spawn' method, and make an engine in each.");
  }
  if (status == cudaErrorMemoryAllocation) {
    fail(ErrorKind::kMemory, "CUDA, ", what,
         ": the device has no more memory. Free some, or make the engine with a smaller max_batch_size or "
         "max_voxels.");
  }
  fail(ErrorKind::kArgument, "CUDA, ", what, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status),
       "). Run `scn-fx env` to see whether this build fits the device.");
}

/// After a kernel launch.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace scn::cuda
