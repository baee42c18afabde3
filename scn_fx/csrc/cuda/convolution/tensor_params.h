// SPDX-License-Identifier: Apache-2.0
// What the kernels of tensor-core convolutions are given.
#pragma once

#include <vector_types.h>

#include "cuda/convolution/finish.h"
#include "cuda/convolution/k_order.h"
#include "cuda/views.h"

namespace scn::cuda {

struct TensorParams {
  MapView map;
  const char* x;
  int32_t x_stride;      // bytes
  bool after_maps;       // the kernels that make the map may not have ended
  int32_t units;         // of K, padded as weights are
  const uint4* weights;  // in the order that the kernel reads (weights.h)
  FinishView finish;
};

}  // namespace scn::cuda
