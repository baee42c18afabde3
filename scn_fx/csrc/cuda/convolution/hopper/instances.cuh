// SPDX-License-Identifier: Apache-2.0
// From numbers to template parameters. Each file of instances says in a Listed<Offsets, Parts> which of those
// of a unit it has.
#pragma once

#include "cuda/convolution/hopper/hopper_convolution.cuh"
#include "cuda/convolution/hopper/kernels.h"

namespace scn::cuda::hopper {

/// Adds an instance to a list: `found` becomes it if it is the variant.
template <typename T, int Offsets, int Parts, int Block, int Ring, FinishKind Kind, bool OnePass,
          bool Pair = false>
void list(const HopperVariant& v, const void*& found) {
  if (v.block != Block || v.ring != Ring || v.finish != Kind || v.one_pass != OnePass || v.pair != Pair)
    return;
  found =
      reinterpret_cast<const void*>(&hopper_convolution<T, Offsets, Parts, Block, Ring, Kind, OnePass, Pair>);
}

/// The usual finishes: rows of this kind, and dense maps.
template <typename T, FinishKind Rows, int Offsets, int Parts>
void list_usual(const HopperVariant& v, const void*& found) {
  constexpr int kFew = kHopperDepth, kMany = kHopperBlock;
  constexpr FinishKind kDense = FinishKind::kHalfDense;
  list<T, Offsets, Parts, kMany, 0, Rows, true>(v, found);
  list<T, Offsets, Parts, kMany, 3, Rows, true>(v, found);
  list<T, Offsets, Parts, kFew, 0, Rows, Parts == 1>(v, found);
  list<T, Offsets, Parts, kFew, 0, kDense, true>(v, found);
  if constexpr (Parts == 2) {  // rows may be several units
    list<T, Offsets, Parts, kMany, 0, Rows, false>(v, found);
    list<T, Offsets, Parts, kMany, 3, Rows, false>(v, found);
    list<T, Offsets, Parts, kMany, 0, kDense, false>(v, found);
  }
}

template <template <int, int> class Listed>
const void* find(const HopperVariant& v) {
  const void* found = nullptr;
#if defined(SCN_FX_HOPPER)
  if (v.parts == 2) {
    Listed<1, 2>::list(v, found);
  } else if (v.offsets == 4) {
    Listed<4, 1>::list(v, found);
  } else if (v.offsets == 2) {
    Listed<2, 1>::list(v, found);
  } else {
    Listed<1, 1>::list(v, found);
  }
#endif
  return found;
}

}  // namespace scn::cuda::hopper
