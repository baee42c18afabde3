// SPDX-License-Identifier: Apache-2.0
// Pooling over kernel maps.
#pragma once

#include <vector>

#include "core/pooling.h"
#include "cpu/convolution/convolution.h"

namespace scn {

/// Rows of float16 or float32, and which of them each output row reads.
struct PooledRows {
  FeatureRows rows;
  MapView map;
};

/// Pools rows and finishes the result. Sums are made in float32, one input after the other, offsets
/// ascending, and divided by the number of neighbours; the largest of several is NaN if one of them is.
Overflow run_pool(const Kernels& kernels, Pooling kind, const std::vector<PooledRows>& inputs,
                  int32_t channels, int64_t rows, const Finish& finish, ThreadPool& pool);

}  // namespace scn
