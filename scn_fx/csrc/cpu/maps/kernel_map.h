// SPDX-License-Identifier: Apache-2.0
// Kernel maps: for each output site and kernel offset, the row of the input site that it reads, if there is
// one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/parallel.h"
#include "core/sizes.h"
#include "core/types.h"
#include "cpu/maps/map_view.h"
#include "cpu/maps/reach.h"
#include "cpu/maps/site_set.h"

namespace scn {

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
