// SPDX-License-Identifier: Apache-2.0
// Pooling over a kernel map.
#pragma once

#include "core/pooling.h"
#include "cpu/convolution/convolution.h"

namespace scn {

/// Pools rows of float16 or float32 and finishes the result. Sums are made in float32, offsets ascending, and
/// divided by the number of neighbours; the largest of several is NaN if one of them is.
Overflow run_pool(const Kernels& kernels, Pooling kind, const FeatureRows& x, int32_t channels,
                  const MapView& map, int64_t rows, const Finish& finish, ThreadPool& pool);

}  // namespace scn
