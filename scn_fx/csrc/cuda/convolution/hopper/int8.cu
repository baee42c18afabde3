// SPDX-License-Identifier: Apache-2.0
// Instances in int8 with the usual finishes.
#include "cuda/convolution/hopper/instances.cuh"
#include "cuda/convolution/lane_half.cuh"
#include "cuda/convolution/lane_int8_rows.cuh"

namespace scn::cuda::hopper {
namespace {

template <int Offsets, int Parts>
struct Listed {
  static void list(const HopperVariant& v, const void*& found) {
    list_usual<int8_t, FinishKind::kInt8Rows, Offsets, Parts>(v, found);
  }
};

}  // namespace

const void* int8_kernel(const HopperVariant& variant) { return find<Listed>(variant); }

}  // namespace scn::cuda::hopper
