// SPDX-License-Identifier: Apache-2.0
// Instances with any finish. Few, since they are seldom needed: weights come through the first-level cache.
#include "cuda/convolution/lane_any.cuh"
#include "cuda/convolution/tensor/instances.cuh"

namespace scn::cuda::tensor {
namespace {

template <typename T, int Offsets, int Parts>
void list_any(const TensorVariant& v, const void*& found) {
  list<T, 16, Offsets, Parts, false, FinishKind::kAny>(v, found);
  list<T, 32, Offsets, Parts, false, FinishKind::kAny>(v, found);
  list<T, kLargestBlock, Offsets, Parts, false, FinishKind::kAny>(v, found);
}

template <int Offsets, int Parts>
struct ListedInt8 {
  static void list(const TensorVariant& v, const void*& found) { list_any<int8_t, Offsets, Parts>(v, found); }
};
template <int Offsets, int Parts>
struct ListedHalf {
  static void list(const TensorVariant& v, const void*& found) { list_any<__half, Offsets, Parts>(v, found); }
};

}  // namespace

const void* any_int8_kernel(const TensorVariant& variant) { return find<ListedInt8>(variant); }
const void* any_half_kernel(const TensorVariant& variant) { return find<ListedHalf>(variant); }

}  // namespace scn::cuda::tensor
