// SPDX-License-Identifier: Apache-2.0
// The gradient of a convolution by its weight, over caller-owned arrays (see functions.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/memory_budget.h"
#include "core/parallel.h"

namespace scn {

struct WeightGradientCall {
  const float* grad;  // [out_sites, out_channels]
  int64_t out_sites, out_channels;
  const float* features;  // [in_sites, in_channels]
  int64_t in_sites, in_channels;
  const int32_t* map;  // [out_sites, offsets]
  int64_t offsets;
  std::string layer;
};

/// [out_channels, offsets, in_channels]: Σ over output rows m of grad[m] ⊗ features[map[m, offset]]. Sums
/// have one order, whatever the threads. Throws for entries that are no input row.
std::unique_ptr<float[]> weight_gradient(const WeightGradientCall& call, ThreadPool& pool,
                                         MemoryBudget& budget);

}  // namespace scn
