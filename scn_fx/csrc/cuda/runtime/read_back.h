// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "cuda/runtime/check.h"

namespace scn::cuda {

/// A few values of the device's, after earlier work of `stream`; waits.
template <typename T>
std::vector<T> read_back(const T* data, size_t count, cudaStream_t stream) {
  std::vector<T> values(count);
  check(cudaMemcpyAsync(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost, stream),
        "reading what an operator found");
  check(cudaStreamSynchronize(stream), "waiting for an operator");
  return values;
}

}  // namespace scn::cuda
