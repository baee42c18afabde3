// SPDX-License-Identifier: Apache-2.0
// Instances in float16 with the usual finishes.
#include "cuda/convolution/hopper/instances.cuh"
#include "cuda/convolution/lane_half.cuh"

namespace scn::cuda::hopper {
namespace {

template <int Offsets, int Parts>
struct Listed {
  static void list(const HopperVariant& v, const void*& found) {
    constexpr int kFew = kHopperDepth, kMany = kHopperBlock;
    constexpr FinishKind kUsual = FinishKind::kHalfRows, kDense = FinishKind::kHalfDense;
    hopper::list<__half, Offsets, Parts, kMany, 0, kUsual, true>(v, found);
    hopper::list<__half, Offsets, Parts, kMany, 3, kUsual, true>(v, found);
    hopper::list<__half, Offsets, Parts, kFew, 0, kUsual, Parts == 1>(v, found);
    hopper::list<__half, Offsets, Parts, kFew, 0, kDense, true>(v, found);
    // Large layers with one block of columns mostly have more tiles than three on each multiprocessor: four
    // warpgroups, though registers spill.
    if constexpr (Parts == 2) hopper::list<__half, Offsets, Parts, kMany, 4, kUsual, true>(v, found);
    if constexpr (Parts == 2) {  // rows may be several units
      hopper::list<__half, Offsets, Parts, kMany, 0, kUsual, false>(v, found);
      hopper::list<__half, Offsets, Parts, kMany, 3, kUsual, false>(v, found);
      hopper::list<__half, Offsets, Parts, kMany, 0, kDense, false>(v, found);
    }
  }
};

}  // namespace

const void* half_kernel(const HopperVariant& variant) { return find<Listed>(variant); }

}  // namespace scn::cuda::hopper
