// SPDX-License-Identifier: Apache-2.0
// Instances with any finish.
#include "cuda/convolution/hopper/instances.cuh"
#include "cuda/convolution/lane_any.cuh"

namespace scn::cuda::hopper {
namespace {

template <typename T, int Offsets, int Parts>
void list_any(const HopperVariant& v, const void*& found) {
  constexpr int kFew = kHopperDepth, kMany = kHopperBlock;
  constexpr FinishKind kAny = FinishKind::kAny;
  list<T, Offsets, Parts, kFew, 0, kAny, true>(v, found);
  list<T, Offsets, Parts, kMany, 0, kAny, true>(v, found);
  list<T, Offsets, Parts, kMany, 3, kAny, true>(v, found);
  if constexpr (Parts == 2) {
    list<T, Offsets, Parts, kFew, 0, kAny, false>(v, found);
    list<T, Offsets, Parts, kMany, 0, kAny, false>(v, found);
    list<T, Offsets, Parts, kMany, 3, kAny, false>(v, found);
    if constexpr (sizeof(T) == 2) list<T, Offsets, Parts, kMany, 4, kAny, true>(v, found);
  }
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
