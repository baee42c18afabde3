// SPDX-License-Identifier: Apache-2.0
// From a coordinate to the rank of its site in ascending (batch, z, y, x) order, or -1.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel.h"
#include "types.h"

namespace scn {

/// A set of occupied cells of a batch of grids. Cells are numbered ((batch * Z + z) * Y + y) * X + x.
///
/// While it fits, the set is a bitmap with the number of sites before each 64-bit word, so that a look-up is
/// one popcount and sites come out in order without sorting. Grids too large for that keep their sorted cell
/// numbers. An index is made to be used again: reset() keeps the memory.
class SiteIndex {
 public:
  /// Empties the set; `batch` grids of `shape`. Throws when the number of cells does not fit in 63 bits.
  void reset(const Triple& shape, int32_t batch);

  int64_t cell(int32_t b, int32_t z, int32_t y, int32_t x) const {
    return ((int64_t(b) * shape_[0] + z) * shape_[1] + y) * shape_[2] + x;
  }
  int64_t cell(const Site& s) const { return cell(s.batch, s.z, s.y, s.x); }
  bool contains_cell(int32_t z, int32_t y, int32_t x) const {
    return uint32_t(z) < uint32_t(shape_[0]) && uint32_t(y) < uint32_t(shape_[1]) &&
           uint32_t(x) < uint32_t(shape_[2]);
  }

  /// Adds a cell to sorted cell numbers (is_bitmap() is false). One thread at a time.
  void append(int64_t cell) { cells_.push_back(cell); }

  /// Adds a cell to a bitmap; any number of threads. Returns false when it was there.
  bool insert(int64_t cell) {
    const uint64_t bit = uint64_t(1) << (cell & 63);
    uint64_t* word = &words_[size_t(cell >> 6)];
    // reading first keeps the cache line shared where many inputs reach the same output
    if (__atomic_load_n(word, __ATOMIC_RELAXED) & bit) return false;
    return !(__atomic_fetch_or(word, bit, __ATOMIC_RELAXED) & bit);
  }

  /// Must be called after the last insert and before the first rank: numbers the sites and lists them in
  /// ascending order. Returns how many there are.
  int64_t finish(ThreadPool& pool, std::vector<Site>* sites);

  /// Memory held, in bytes.
  int64_t bytes() const {
    return int64_t(words_.capacity() * 8 + before_.capacity() * 4 + occupied_.capacity() * 8 +
                   cells_.capacity() * 8);
  }

  bool is_bitmap() const { return bitmap_; }
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

  /// Occupancy of `width` <= 63 consecutive cells from `cell` on (bit i: cell + i). Where any is occupied,
  /// `rank` is the rank of the first of them: consecutive occupied cells have consecutive ranks. Bitmaps
  /// only.
  uint64_t run(int64_t cell, int32_t width, int32_t* rank) const {
    const size_t at = size_t(cell >> 6);
    const int shift = int(cell & 63);
    const uint64_t word = words_[at], low = (uint64_t(1) << shift) - 1, wanted = (uint64_t(1) << width) - 1;
    // Counts are kept for occupied words only; what is read for others is not used, and a branch would cost
    // more.
    *rank = int32_t(before_[at] + uint32_t(__builtin_popcountll(word & low)));
    if (shift + width <= 64) return (word >> shift) & wanted;
    // the bitmap has one spare word, so the next one can always be read
    if (!(word >> shift)) *rank = int32_t(before_[at + 1]);
    return ((word >> shift) | (words_[at + 1] << (64 - shift))) & wanted;
  }

 private:
  int32_t rank_sorted(int64_t cell) const;
  Site site_of(int64_t cell) const;

  Triple shape_{0, 0, 0};
  int32_t batch_ = 0;
  bool bitmap_ = false;
  bool finished_ = false;  // the last frame was not interrupted by an error, so occupied_ is complete
  int64_t size_ = 0;
  std::vector<size_t> occupied_;  // words to clear before the next frame
  std::vector<uint64_t> words_;
  std::vector<uint32_t> before_;  // sites before each word; stale where the word is zero
  std::vector<int64_t> cells_;
};

}  // namespace scn
