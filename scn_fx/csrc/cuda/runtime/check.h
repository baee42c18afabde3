// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

namespace scn::cuda {

/// Throws with CUDA's own text. `what` says what was being done.
[[noreturn]] void fail_cuda(cudaError_t status, const char* what);

/// Throws unless `status` is success.
inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) fail_cuda(status, what);
}

/// After a kernel launch.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace scn::cuda
