// SPDX-License-Identifier: Apache-2.0
// Instances in float16 with the usual finishes.
#include "cuda/convolution/lane_half.cuh"
#include "cuda/convolution/tensor/instances.cuh"

namespace scn::cuda::tensor {
namespace {

template <int Offsets, int Parts>
struct Listed {
  static void list(const TensorVariant& v, const void*& found) {
    constexpr FinishKind kUsual = FinishKind::kHalfRows;
    tensor::list<__half, 16, Offsets, Parts, true, kUsual>(v, found);
    tensor::list<__half, 16, Offsets, Parts, false, kUsual>(v, found);
    tensor::list<__half, 32, Offsets, Parts, true, kUsual>(v, found);
    tensor::list<__half, 32, Offsets, Parts, false, kUsual>(v, found);
    tensor::list<__half, kLargestBlock, Offsets, Parts, false, kUsual>(v, found);
    // The layer before a dense map is mostly a wide one.
    if constexpr (Offsets == 1)
      tensor::list<__half, kLargestBlock, Offsets, Parts, false, FinishKind::kHalfDense>(v, found);
  }
};

}  // namespace

const void* half_kernel(const TensorVariant& variant) { return find<Listed>(variant); }

}  // namespace scn::cuda::tensor
