// SPDX-License-Identifier: Apache-2.0
// From numbers to template parameters. Each file of instances says in a Listed<Offsets, Parts> which of those
// of a unit it has.
#pragma once

#include "cuda/convolution/tensor/kernels.h"
#include "cuda/convolution/tensor/tensor_convolution.cuh"

namespace scn::cuda::tensor {

/// Adds an instance to a list: `found` becomes it if it is the variant.
template <typename T, int N, int Offsets, int Parts, bool Resident, FinishKind Kind>
void list(const TensorVariant& v, const void*& found) {
  if (v.block != N || v.resident != Resident || v.finish != Kind) return;
  found = reinterpret_cast<const void*>(&tensor_convolution<T, N, Offsets, Parts, Resident, Kind>);
}

/// The usual finishes: rows of this kind, and dense maps.
template <typename T, FinishKind Rows, int Offsets, int Parts>
void list_usual(const TensorVariant& v, const void*& found) {
  list<T, 16, Offsets, Parts, true, Rows>(v, found);
  list<T, 16, Offsets, Parts, false, Rows>(v, found);
  list<T, 32, Offsets, Parts, true, Rows>(v, found);
  list<T, 32, Offsets, Parts, false, Rows>(v, found);
  list<T, kLargestBlock, Offsets, Parts, false, Rows>(v, found);
  // The layer before a dense map is mostly a wide one.
  if constexpr (Offsets == 1) list<T, kLargestBlock, Offsets, Parts, false, FinishKind::kHalfDense>(v, found);
}

template <template <int, int> class Listed>
const void* find(const TensorVariant& v) {
  const void* found = nullptr;
  if (v.parts == 2) {
    Listed<1, 2>::list(v, found);
  } else if (v.offsets == 4) {
    Listed<4, 1>::list(v, found);
  } else if (v.offsets == 2) {
    Listed<2, 1>::list(v, found);
  } else {
    Listed<1, 1>::list(v, found);
  }
  return found;
}

}  // namespace scn::cuda::tensor
