// SPDX-License-Identifier: Apache-2.0
// Instances for pairs of blocks, with rows as usual.
#include "cuda/convolution/hopper/instances.cuh"
#include "cuda/convolution/lane_half.cuh"
#include "cuda/convolution/lane_int8_rows.cuh"

namespace scn::cuda::hopper {
namespace {

template <typename T, FinishKind Rows, int Offsets, int Parts>
void list_pair(const HopperVariant& v, const void*& found) {
  list<T, Offsets, Parts, kPairBlock[Parts], kPairWarpgroups, Rows, true, true>(v, found);
}

template <int Offsets, int Parts>
struct Listed {
  static void list(const HopperVariant& v, const void*& found) {
    if constexpr (Offsets == 1) list_pair<int8_t, FinishKind::kInt8Rows, Offsets, Parts>(v, found);
    if constexpr (Parts == 2) list_pair<__half, FinishKind::kHalfRows, Offsets, Parts>(v, found);
  }
};

}  // namespace

const void* pair_kernel(const HopperVariant& variant) { return find<Listed>(variant); }

}  // namespace scn::cuda::hopper
