// SPDX-License-Identifier: Apache-2.0
// Instances in int8 with the usual finishes.
#include "cuda/convolution/lane_half.cuh"
#include "cuda/convolution/lane_int8_rows.cuh"
#include "cuda/convolution/tensor/instances.cuh"

namespace scn::cuda::tensor {
namespace {

template <int Offsets, int Parts>
struct Listed {
  static void list(const TensorVariant& v, const void*& found) {
    constexpr FinishKind kUsual = FinishKind::kInt8Rows;
    tensor::list<int8_t, 16, Offsets, Parts, true, kUsual>(v, found);
    tensor::list<int8_t, 16, Offsets, Parts, false, kUsual>(v, found);
    tensor::list<int8_t, 32, Offsets, Parts, true, kUsual>(v, found);
    tensor::list<int8_t, 32, Offsets, Parts, false, kUsual>(v, found);
    tensor::list<int8_t, kLargestBlock, Offsets, Parts, false, kUsual>(v, found);
    // The layer before a dense map is mostly a wide one.
    if constexpr (Offsets == 1)
      tensor::list<int8_t, kLargestBlock, Offsets, Parts, false, FinishKind::kHalfDense>(v, found);
  }
};

}  // namespace

const void* int8_kernel(const TensorVariant& variant) { return find<Listed>(variant); }

}  // namespace scn::cuda::tensor
