// SPDX-License-Identifier: Apache-2.0
// Instances with any finish.
#include "cuda/convolution/hopper/instances.cuh"
#include "cuda/convolution/lane_any.cuh"

namespace scn::cuda::hopper {
namespace {

template <typename T, int Offsets, int Parts>
void list_any(const HopperVariant& v, const void*& found) {
  constexpr bool kOnePass = Parts == 1;
  list<T, Offsets, Parts, kHopperDepth, 0, FinishKind::kAny, kOnePass>(v, found);
  list<T, Offsets, Parts, kHopperBlock, 0, FinishKind::kAny, kOnePass>(v, found);
  list<T, Offsets, Parts, kHopperBlock, 3, FinishKind::kAny, kOnePass>(v, found);
}

template <int Offsets, int Parts>
struct ListedInt8 {
  static void list(const HopperVariant& v, const void*& found) { list_any<int8_t, Offsets, Parts>(v, found); }
};
template <int Offsets, int Parts>
struct ListedHalf {
  static void list(const HopperVariant& v, const void*& found) { list_any<__half, Offsets, Parts>(v, found); }
};

}  // namespace

const void* any_int8_kernel(const HopperVariant& variant) { return find<ListedInt8>(variant); }
const void* any_half_kernel(const HopperVariant& variant) { return find<ListedHalf>(variant); }

}  // namespace scn::cuda::hopper
