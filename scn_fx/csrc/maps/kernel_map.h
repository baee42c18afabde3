// SPDX-License-Identifier: Apache-2.0
// Kernel maps: for each output site and kernel offset, the row of the input site that it reads, or -1.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "maps/site_index.h"
#include "parallel.h"
#include "types.h"

namespace scn {

/// Sites of one level: the coordinates in row order, and the look-up from coordinate to row.
/// `row_of_rank` is empty when rows ascend by (batch, z, y, x), as the engine keeps them.
struct SiteSet {
  SiteIndex index;
  std::vector<Site> sites;
  std::vector<int32_t> row_of_rank;

  int64_t size() const { return int64_t(sites.size()); }
  int32_t row(int64_t cell) const {
    const int32_t rank = index.rank(cell);
    return rank < 0 || row_of_rank.empty() ? rank : row_of_rank[size_t(rank)];
  }
};

/// Checks `indices` (rows of batch, z, y, x) against the grid and indexes them.
/// With `order`, the rows of the result ascend and order[row] is the row of `indices` each came from; without
/// it they keep the given order. Throws for coordinates out of range and for duplicates; `layer` names whom
/// the message is about.
SiteSet index_sites(const Site* indices, int64_t count, const Triple& shape, int32_t batch,
                    const std::string& layer, std::vector<int32_t>* order = nullptr);

/// Sites reached by at least one input through a strided or transposed convolution, in ascending order.
/// Throws when there are more than `output_bound`.
SiteSet output_sites(const SiteSet& input, const ConvGeometry& geometry, int64_t output_bound,
                     const std::string& layer);

/// Row-major [outputs, volume] map of a submanifold convolution.
void subm_map(const SiteSet& sites, const ConvGeometry& geometry, ThreadPool& pool, int32_t* map);

/// Row-major [outputs, volume] map of a strided or transposed convolution.
void conv_map(const SiteSet& input, const SiteSet& output, const ConvGeometry& geometry, ThreadPool& pool,
              int32_t* map);

/// The same pairs seen from the input sites: row-major [input_sites, volume]. `map` is [outputs, volume].
void inverse_map(const int32_t* map, int64_t outputs, int32_t volume, int64_t input_sites, int32_t* inverse);

}  // namespace scn
