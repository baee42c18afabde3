// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "error.h"

namespace scn::cuda {

/// Throws with CUDA's own text unless `status` is success. `what` says what was being done.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that was reported must not be met again by the next call
  fail(ErrorKind::kArgument, "CUDA, ", what, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status),
       "). Run `scn-fx env` to see whether this build fits the device.");
}

/// After a kernel launch.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace scn::cuda
