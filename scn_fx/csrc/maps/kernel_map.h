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

/// Sites of one level: the coordinates in row order, and the look-up from coordinate to row. Made to be used
/// again frame after frame, so that memory is taken once.
struct SiteSet {
  SiteIndex index;
  std::vector<Site> sites;
  /// Empty when rows ascend by (batch, z, y, x), as the engine keeps them.
  std::vector<int32_t> row_of_rank;

  int64_t size() const { return int64_t(sites.size()); }
  int32_t row(int64_t cell) const {
    const int32_t rank = index.rank(cell);
    return rank < 0 || row_of_rank.empty() ? rank : row_of_rank[size_t(rank)];
  }
};

/// Checks `indices` (rows of batch, z, y, x) against the grid and indexes them into `set`.
/// With `order`, the rows of the set ascend and order[row] is the row of `indices` each came from; without it
/// they keep the given order. Throws for coordinates out of range and for duplicates; `layer` names whom the
/// message is about.
void index_sites(const Site* indices, int64_t count, const Triple& shape, int32_t batch,
                 const std::string& layer, ThreadPool& pool, SiteSet* set,
                 std::vector<int32_t>* order = nullptr);

/// For one axis: the output coordinate that each input coordinate reaches with each offset, or -1.
struct AxisReach {
  int32_t kernel = 1;
  std::vector<int32_t> output;  // [input coordinate, offset]
};
using Reach = std::array<AxisReach, 3>;
Reach make_reach(const ConvGeometry& geometry);

/// Sites reached by at least one input through a strided or transposed convolution, in ascending order.
/// Throws when there are more than `output_bound`.
void output_sites(const SiteSet& input, const ConvGeometry& geometry, const Reach& reach,
                  int64_t output_bound, const std::string& layer, ThreadPool& pool, SiteSet* output);

/// Row-major [outputs, volume] map of a submanifold convolution.
void subm_map(const SiteSet& sites, const ConvGeometry& geometry, ThreadPool& pool, int32_t* map);

/// Row-major [outputs, volume] map of a strided or transposed convolution.
void conv_map(const SiteSet& input, const SiteSet& output, const ConvGeometry& geometry, const Reach& reach,
              ThreadPool& pool, int32_t* map);

/// The same pairs seen from the input sites: row-major [input_sites, volume]. `map` is [outputs, volume].
void inverse_map(const int32_t* map, int64_t outputs, int32_t volume, int64_t input_sites, int32_t* inverse);

}  // namespace scn
