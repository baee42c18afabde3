// SPDX-License-Identifier: Apache-2.0
#include "cuda/traits.h"

namespace scn {
namespace {

int32_t bytes_of_row(int32_t channels, ElementType type) {
  return cuda::row_bytes(channels, element_bytes(type));
}

}  // namespace

const BackendTraits kCudaTraits{
    "the CUDA backend", bytes_of_row,     0, false, cuda::kMaxEmissions, true, cuda::kMaxAxes,
    cuda::kMaxSets,     cuda::kMaxGrowths};

}  // namespace scn
