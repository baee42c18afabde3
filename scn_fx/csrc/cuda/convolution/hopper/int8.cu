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
    constexpr int kFew = kHopperDepth, kMany = kHopperBlock;
    constexpr FinishKind kUsual = FinishKind::kInt8Rows, kDense = FinishKind::kHalfDense;
    hopper::list<int8_t, Offsets, Parts, kMany, 0, kUsual, true>(v, found);
    hopper::list<int8_t, Offsets, Parts, kMany, 3, kUsual, true>(v, found);
    hopper::list<int8_t, Offsets, Parts, kFew, 0, kUsual, Parts == 1>(v, found);
    hopper::list<int8_t, Offsets, Parts, kFew, 0, kDense, true>(v, found);
    if constexpr (Parts == 2) {  // rows may be several units
      hopper::list<int8_t, Offsets, Parts, kMany, 0, kUsual, false>(v, found);
      hopper::list<int8_t, Offsets, Parts, kMany, 3, kUsual, false>(v, found);
      hopper::list<int8_t, Offsets, Parts, kMany, 0, kDense, false>(v, found);
    }
  }
};

}  // namespace

const void* int8_kernel(const HopperVariant& variant) { return find<Listed>(variant); }

}  // namespace scn::cuda::hopper
