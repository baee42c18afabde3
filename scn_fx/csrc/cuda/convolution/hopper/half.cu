// SPDX-License-Identifier: Apache-2.0
// Instances in float16 with the usual finishes.
#include "cuda/convolution/hopper/instances.cuh"
#include "cuda/convolution/lane_half.cuh"

namespace scn::cuda::hopper {
namespace {

template <int Offsets, int Parts>
struct Listed {
  static void list(const HopperVariant& v, const void*& found) {
    constexpr FinishKind kRows = FinishKind::kHalfRows;
    list_usual<__half, kRows, Offsets, Parts>(v, found);
    // Large layers with one block of columns mostly have more tiles than three on each multiprocessor: four
    // warpgroups, though registers spill.
    if constexpr (Parts == 2) hopper::list<__half, Offsets, Parts, kHopperBlock, 4, kRows, true>(v, found);
  }
};

}  // namespace

const void* half_kernel(const HopperVariant& variant) { return find<Listed>(variant); }

}  // namespace scn::cuda::hopper
