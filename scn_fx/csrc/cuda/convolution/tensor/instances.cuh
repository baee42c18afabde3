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
