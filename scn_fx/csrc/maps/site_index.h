// SPDX-License-Identifier: Apache-2.0
// From a coordinate to the rank of its site in ascending (batch, z, y, x) order, or -1.
#pragma once

#include <cstdint>
#include <vector>

#include "types.h"

namespace scn {

/// A set of occupied cells of a batch of grids. Cells are numbered ((batch * Z + z) * Y + y) * X + x.
///
/// While it fits, the set is a bitmap with the number of sites before each 64-bit word, so that a look-up is
/// one popcount and sites come out in order without sorting. Grids too large for that keep their sorted cell
/// numbers.
class SiteIndex {
 public:
  /// `batch` grids of `shape`. Throws when the number of cells does not fit in 63 bits.
  SiteIndex(const Triple& shape, int32_t batch);

  int64_t cell(const Site& s) const {
    return ((int64_t(s.batch) * shape_[0] + s.z) * shape_[1] + s.y) * shape_[2] + s.x;
  }
  bool contains_cell(int32_t z, int32_t y, int32_t x) const {
    return uint32_t(z) < uint32_t(shape_[0]) && uint32_t(y) < uint32_t(shape_[1]) &&
           uint32_t(x) < uint32_t(shape_[2]);
  }

  /// Adds a cell; returns false when it was there (only told reliably while the set is a bitmap).
  bool insert(int64_t cell) {
    if (!bitmap_) {
      cells_.push_back(cell);
      return true;
    }
    uint64_t& word = words_[size_t(cell >> 6)];
    const uint64_t bit = uint64_t(1) << (cell & 63);
    const bool fresh = !(word & bit);
    word |= bit;
    return fresh;
  }

  /// Must be called after the last insert and before the first rank. Returns the number of distinct cells.
  int64_t finish();

  int64_t size() const { return size_; }
  int32_t batch() const { return batch_; }
  const Triple& shape() const { return shape_; }

  /// Rank of an occupied cell, -1 for an empty one. The cell must lie inside the grids.
  int32_t rank(int64_t cell) const {
    if (!bitmap_) return rank_sorted(cell);
    const uint64_t word = words_[size_t(cell >> 6)];
    const uint64_t bit = uint64_t(1) << (cell & 63);
    if (!(word & bit)) return -1;
    return int32_t(before_[size_t(cell >> 6)] + uint32_t(__builtin_popcountll(word & (bit - 1))));
  }

  /// All sites in ascending order.
  std::vector<Site> sites() const;

 private:
  int32_t rank_sorted(int64_t cell) const;
  Site site_of(int64_t cell) const;

  Triple shape_;
  int32_t batch_;
  bool bitmap_;
  int64_t size_ = 0;
  std::vector<uint64_t> words_;
  std::vector<uint32_t> before_;
  std::vector<int64_t> cells_;
};

}  // namespace scn
