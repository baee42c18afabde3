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
#include "sizes.h"
#include "types.h"

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

/// What an axis of a convolution connects. Tables where they are small; elsewhere a row is computed when it
/// is asked for, so that a large grid alone takes neither memory nor time.
struct AxisReach {
  int32_t kernel = 1, stride = 1, padding = 0, dilation = 1;
  int32_t inputs = 0, outputs = 0;  // extents
  bool transposed = false;
  std::vector<int32_t> output;  // [input coordinate, offset]: the output coordinate that it reaches, or -1
  std::vector<int32_t> input;   // [output coordinate, offset]: the input coordinate that it reads, or -1
  /// The outputs of each input coordinate as bits from the first one on; empty where 32 bits do not hold
  /// them, or without tables.
  struct Span {
    int32_t first;
    uint32_t bits;
  };
  std::vector<Span> spans;

  bool has_tables() const { return !input.empty(); }
  int32_t output_of(int32_t in, int32_t offset) const;
  int32_t input_of(int32_t out, int32_t offset) const;
};
using Reach = std::array<AxisReach, 3>;
/// Of a geometry that was checked.
Reach make_reach(const ConvGeometry& geometry);
/// Memory that its tables take, in bytes.
Size reach_bytes(const ConvGeometry& geometry);

/// Rows of a reach, for one thread: of its tables, or computed.
class ReachRows {
 public:
  explicit ReachRows(const Reach& reach);
  /// [kernel] output coordinates that an input coordinate reaches, or -1 each; valid until the next call for
  /// this axis.
  const int32_t* outputs(size_t axis, int32_t in) { return row<true>(axis, in); }
  /// [kernel] input coordinates that an output coordinate reads, or -1 each.
  const int32_t* inputs(size_t axis, int32_t out) { return row<false>(axis, out); }

 private:
  template <bool kOutputs>
  const int32_t* row(size_t axis, int32_t coordinate) {
    const AxisReach& r = reach_[axis];
    if (r.has_tables()) return (kOutputs ? r.output : r.input).data() + int64_t(coordinate) * r.kernel;
    int32_t* const row = computed_[axis].data();
    for (int32_t k = 0; k < r.kernel; ++k)
      row[k] = kOutputs ? r.output_of(coordinate, k) : r.input_of(coordinate, k);
    return row;
  }

  const Reach& reach_;
  std::vector<int32_t> computed_[3];
};

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

  /// Memory that reset() takes for a map, in bytes.
  static Size bytes_for(int64_t rows, int32_t offsets);

  /// Room for the rows of a map. Rows are filled in chunks of kChunkRows; each has inputs of its own.
  void reset(int64_t rows, int32_t offsets);
  static constexpr int64_t kChunkRows = 1024;
  int32_t* chunk_inputs(int64_t row) {
    return inputs_.data() + row / kChunkRows * (kChunkRows * offsets_ + kMapPadding);
  }
  uint64_t* mask(int64_t row) { return masks_.data() + row * mask_words_; }
  void set_first(int64_t row, const int32_t* inputs) { first_.data()[row] = inputs - inputs_.data(); }

  /// From and to row-major [rows, offsets] with -1 for absent neighbours. assign() throws for entries that
  /// are no row of an input of `input_rows`; `layer` names whom the message is about.
  void assign(const int32_t* dense, int64_t rows, int32_t offsets, int64_t input_rows,
              const std::string& layer, ThreadPool& pool);
  void expand(ThreadPool& pool, int32_t* dense) const;

 private:
  int32_t offsets_ = 0, mask_words_ = 0;
  Buffer<uint64_t> masks_;
  Buffer<int64_t> first_;
  Buffer<int32_t> inputs_;
};

/// How many cells output_sites() has to sort, each counted once for every input that reaches it: memory that
/// it takes where the outputs fit no bitmap. Zero where they do.
Size cells_to_sort(const SiteSet& input, const ConvGeometry& geometry, const Reach& reach);

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
/// `map` is [outputs, volume] of a caller, `inverse` [input_sites, volume]. Throws for entries that are no
/// input row and for pairs that two outputs claim; entries are read once.
void inverse_map(const int32_t* map, int64_t outputs, int32_t volume, int64_t input_sites,
                 const std::string& layer, int32_t* inverse);

}  // namespace scn
