// SPDX-License-Identifier: Apache-2.0
// Instances in float16 with the usual finishes.
#include "cuda/convolution/lane_half.cuh"
#include "cuda/convolution/tensor/instances.cuh"

namespace scn::cuda::tensor {
namespace {

template <int Offsets, int Parts>
struct Listed {
  static void list(const TensorVariant& v, const void*& found) {
    list_usual<__half, FinishKind::kHalfRows, Offsets, Parts>(v, found);
  }
};

}  // namespace

const void* half_kernel(const TensorVariant& variant) { return find<Listed>(variant); }

}  // namespace scn::cuda::tensor
