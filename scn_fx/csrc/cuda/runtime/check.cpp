// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/check.h"

#include "core/error.h"

namespace scn::cuda {

void fail_cuda(cudaError_t status, const char* what) {
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

}  // namespace scn::cuda
