// SPDX-License-Identifier: Apache-2.0
// Kernel maps: for each output site and kernel offset, the row of the input site that it reads, if there is
// one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "maps/buffer.h"
#include "maps/map_view.h"
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

/// What an axis of a convolution connects.
struct AxisReach {
  int32_t kernel = 1;
  std::vector<int32_t> output;  // [input coordinate, offset]: the output coordinate that it reaches, or -1
  std::vector<int32_t> input;   // [output coordinate, offset]: the input coordinate that it reads, or -1
  /// The outputs of each input coordinate as bits from the first one on; empty where 32 bits do not hold
  /// them.
  struct Span {
    int32_t first;
    uint32_t bits;
  };
  std::vector<Span> spans;
};
using Reach = std::array<AxisReach, 3>;
Reach make_reach(const ConvGeometry& geometry);

/// A kernel map that keeps nothing for absent neighbours: of 27 offsets, 7 to 17 have one. Its memory is used
/// again by the next frame.
class KernelMap {
 public:
  MapView view() const { return {masks_.data(), first_.data(), inputs_.data(), offsets_, mask_words_}; }
  int64_t rows() const { return first_.size(); }
  int64_t pairs() const;

  /// Memory held, in bytes. Of the room for all neighbours that could be, only what was written takes part of
  /// the machine's.
  int64_t bytes() const { return masks_.bytes() + first_.bytes() + inputs_.bytes(); }

  /// Room for the rows of a map. Rows are filled in chunks of kChunkRows; each has inputs of its own.
  void reset(int64_t rows, int32_t offsets);
  static constexpr int64_t kChunkRows = 1024;
  int32_t* chunk_inputs(int64_t row) {
    return inputs_.data() + row / kChunkRows * (kChunkRows * offsets_ + kMapPadding);
  }
  uint64_t* mask(int64_t row) { return masks_.data() + row * mask_words_; }
  void set_first(int64_t row, const int32_t* inputs) { first_.data()[row] = inputs - inputs_.data(); }

  /// From and to row-major [rows, offsets] with -1 for absent neighbours.
  void assign(const int32_t* dense, int64_t rows, int32_t offsets, ThreadPool& pool);
  void expand(ThreadPool& pool, int32_t* dense) const;

 private:
  int32_t offsets_ = 0, mask_words_ = 0;
  Buffer<uint64_t> masks_;
  Buffer<int64_t> first_;
  Buffer<int32_t> inputs_;
};

/// Sites reached by at least one input through a strided or transposed convolution, in ascending order.
/// Throws when there are more than `output_bound`.
void output_sites(const SiteSet& input, const ConvGeometry& geometry, const Reach& reach,
                  int64_t output_bound, const std::string& layer, ThreadPool& pool, SiteSet* output);

/// Map of a submanifold convolution. `reach` is that of its geometry.
void subm_map(const SiteSet& sites, const ConvGeometry& geometry, const Reach& reach, ThreadPool& pool,
              KernelMap* map);

/// Map of a strided or transposed convolution.
void conv_map(const SiteSet& input, const SiteSet& output, const ConvGeometry& geometry, const Reach& reach,
              ThreadPool& pool, KernelMap* map);

/// The same pairs seen from the input sites.
void inverse_map(const KernelMap& map, int64_t input_sites, KernelMap* inverse);

// The same maps row-major, [outputs, volume] with -1 for absent neighbours.

void subm_map(const SiteSet& sites, const ConvGeometry& geometry, ThreadPool& pool, int32_t* map);
void conv_map(const SiteSet& input, const SiteSet& output, const ConvGeometry& geometry, const Reach& reach,
              ThreadPool& pool, int32_t* map);
/// `map` is [outputs, volume], `inverse` [input_sites, volume].
void inverse_map(const int32_t* map, int64_t outputs, int32_t volume, int64_t input_sites, int32_t* inverse);

}  // namespace scn
