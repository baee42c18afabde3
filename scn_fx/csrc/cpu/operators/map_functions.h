// SPDX-License-Identifier: Apache-2.0
// Kernel maps and dense maps of caller-owned sites: what the torch custom operators run, as in functions.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/layer.h"
#include "core/memory_budget.h"
#include "core/parallel.h"
#include "core/types.h"

namespace scn {

/// A row-major result, [rows, columns].
struct IntRows {
  std::unique_ptr<int32_t[]> data;
  int64_t rows = 0, columns = 0;
};

/// Kernel map of a submanifold convolution, [sites, offsets]; rows in the order of the sites.
IntRows make_subm_map(const GivenSites& sites, const Triple& shape, const Triple& kernel,
                      const Triple& dilation, const std::string& layer, ThreadPool& pool,
                      MemoryBudget& budget);

/// Output sites, ascending, of a strided or transposed convolution, [outputs, 4], and its kernel map,
/// [outputs, offsets]. kBound for more than `output_bound` outputs.
struct StridedMap {
  IntRows sites, map;
};
StridedMap make_conv_map(const GivenSites& sites, const ConvGeometry& geometry, int64_t output_bound,
                         const std::string& layer, ThreadPool& pool, MemoryBudget& budget);

/// [input_sites, offsets] of a map [outputs, offsets].
IntRows make_inverse_map(const int32_t* map, int64_t outputs, int64_t offsets, int64_t input_sites,
                         const std::string& layer, MemoryBudget& budget);

/// dense [batch, channels, *shape] of features [sites, channels] of `element` bytes each.
std::unique_ptr<char[]> make_dense(const void* features, int64_t element, int64_t channels,
                                   const GivenSites& sites, const Triple& shape, const std::string& layer,
                                   ThreadPool& pool, MemoryBudget& budget);

}  // namespace scn
