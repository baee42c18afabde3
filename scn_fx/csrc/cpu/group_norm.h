// SPDX-License-Identifier: Apache-2.0
// Normalisation of each row over groups of its channels.
#pragma once

#include "cpu/convolution/convolution.h"

namespace scn {

struct GroupNorm {
  int32_t channels, groups;
  float epsilon;
  const float* scale;  // [channels]
  const float* shift;
};

/// (x - mean) / sqrt(variance + epsilon) * scale + shift of rows of float16 or float32, then the finish. In
/// float64, sums in the order of channels, rounded once to float32.
Overflow run_group_norm(const Kernels& kernels, const GroupNorm& norm, const FeatureRows& x, int64_t rows,
                        const Finish& finish, ThreadPool& pool);

}  // namespace scn
