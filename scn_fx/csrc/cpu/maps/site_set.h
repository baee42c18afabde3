// SPDX-License-Identifier: Apache-2.0
// Sites of a level: the caller's, and those that a convolution makes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/parallel.h"
#include "core/sizes.h"
#include "core/types.h"
#include "cpu/maps/reach.h"
#include "cpu/maps/site_index.h"

namespace scn {

/// Sites of one level: the coordinates in row order, and the look-up from coordinate to row. Made to be used
/// again frame after frame, so that memory is taken once.
struct SiteSet {
  SiteIndex index;
  std::vector<Site> sites;
  /// The caller's rows, copied before they are checked: he may write to his own meanwhile.
  Buffer<Site> given;
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
/// message is about. `indices` are read once.
void index_sites(const Site* indices, int64_t count, const Triple& shape, int32_t batch,
                 const std::string& layer, ThreadPool& pool, SiteSet* set,
                 std::vector<int32_t>* order = nullptr);

/// How many cells mark_output_sites() has to sort, each counted once for every input that reaches it: memory
/// that it takes where the outputs fit no bitmap. Zero where they do.
Size cells_to_sort(const SiteSet& input, const ConvGeometry& geometry, const Reach& reach);

/// Sites reached by at least one input through a strided or transposed convolution, in ascending order.
/// Throws when there are more than `output_bound`.
void output_sites(const SiteSet& input, const ConvGeometry& geometry, const Reach& reach,
                  int64_t output_bound, const std::string& layer, ThreadPool& pool, SiteSet* output);

/// The same in parts, for outputs that several inputs reach: an empty set on a grid; what each input reaches;
/// the sites.
void begin_output_sites(const Triple& shape, int32_t batch, ThreadPool& pool, SiteSet* output);
void mark_output_sites(const SiteSet& input, const Reach& reach, ThreadPool& pool, SiteSet* output);
void finish_output_sites(int64_t output_bound, const std::string& layer, ThreadPool& pool, SiteSet* output);

}  // namespace scn
