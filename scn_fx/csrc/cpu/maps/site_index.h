// SPDX-License-Identifier: Apache-2.0
// From a coordinate to the rank of its site in ascending (batch, z, y, x) order, or -1.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "core/sizes.h"
#include "core/types.h"

namespace scn {

/// A set of occupied cells of a batch of grids. Cells are numbered ((batch * Z + z) * Y + y) * X + x.
///
/// While it fits, the set is a bitmap with the number of sites up to each 64-bit word, so that a look-up is
/// one popcount and sites come out in order without sorting. A second bitmap says which words are occupied:
/// LiDAR leaves nearly all of them empty. Grids too large for that keep their sorted cell numbers. An index
/// is made to be used again: reset() keeps the memory.
class SiteIndex {
 public:
  /// Empties the set; `batch` grids of `shape`. Throws when the number of cells does not fit in 63 bits.
  /// After a failure it can be called again.
  void reset(const Triple& shape, int32_t batch, ThreadPool& pool);

  /// Whether reset() makes a bitmap, and the memory it takes for that, in bytes.
  static bool fits_bitmap(const Triple& shape, int32_t batch);
  static Size bitmap_bytes(const Triple& shape, int32_t batch);

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

  /// Adds a cell to a bitmap; any number of threads.
  void insert(int64_t cell) { add_bits(size_t(cell >> 6), uint64_t(1) << (cell & 63)); }

  /// The same for a single thread, which needs no atomics.
  void insert_alone(int64_t cell) {
    words_[size_t(cell >> 6)] |= uint64_t(1) << (cell & 63);
    occupied_[size_t(cell >> 12)] |= uint64_t(1) << (cell >> 6 & 63);
  }

  /// Adds cell + i for every bit i of `bits`; bitmaps only, any number of threads.
  void insert_run(int64_t cell, uint64_t bits) {
    const size_t at = size_t(cell >> 6);
    const int shift = int(cell & 63);
    if (bits << shift) add_bits(at, bits << shift);
    if (shift && bits >> (64 - shift)) add_bits(at + 1, bits >> (64 - shift));
  }

  /// Must be called after the last insert and before the first rank: numbers the sites and lists them in
  /// ascending order. Returns how many there are; more than `most` are only counted.
  int64_t finish(ThreadPool& pool, std::vector<Site>* sites,
                 int64_t most = std::numeric_limits<int64_t>::max());

  /// Memory held, in bytes.
  int64_t bytes() const {
    return int64_t(words_.capacity() * 8 + through_.capacity() * 4 + occupied_.capacity() * 8 +
                   cells_.capacity() * 8);
  }

  bool is_bitmap() const { return bitmap_; }
  int64_t size() const { return size_; }
  int32_t batch() const { return batch_; }
  const Triple& shape() const { return shape_; }

  /// Asks for what insert() and rank() of a cell read, which nobody can guess. Bitmaps only.
  void prefetch(int64_t cell) const {
    __builtin_prefetch(&words_[size_t(cell >> 6)]);
    __builtin_prefetch(&through_[size_t(cell >> 6)]);
  }

  /// Rank of an occupied cell, -1 for an empty one. The cell must lie inside the grids.
  int32_t rank(int64_t cell) const {
    if (!bitmap_) return rank_sorted(cell);
    const uint64_t from = words_[size_t(cell >> 6)] >> (cell & 63);  // from this cell to the end of its word
    if (!(from & 1)) return -1;
    return int32_t(through_[size_t(cell >> 6)] - uint32_t(__builtin_popcountll(from)));
  }

  /// A bitmap as a loop reads it, because a loop that stores numbers cannot know that the index stays the
  /// same.
  struct Bits {
    const uint64_t* words;
    const uint32_t* through;

    /// Occupancy of `width` <= 63 consecutive cells from `cell` on (bit i: cell + i). Where any is occupied,
    /// `rank` is the rank of the first of them: consecutive occupied cells have consecutive ranks.
    uint64_t run(int64_t cell, int32_t width, int32_t* rank) const {
      const int64_t at = cell >> 6;
      const int32_t shift = int32_t(cell & 63);
      uint64_t bits = words[at] >> shift;
      // Counts are kept for occupied words only; what is read for others is not used, and a branch would cost
      // more.
      *rank = int32_t(through[at] - uint32_t(__builtin_popcountll(bits)));
      if (shift > 64 - width) {
        // the bitmap has one spare word, so the next one can always be read
        const uint64_t next = words[at + 1];
        if (!bits) *rank = int32_t(through[at + 1] - uint32_t(__builtin_popcountll(next)));
        bits |= next << (64 - shift);
      }
      return bits & ((uint64_t(1) << width) - 1);
    }
  };
  Bits bits() const { return {words_.data(), through_.data()}; }

 private:
  int32_t rank_sorted(int64_t cell) const;
  Site site_of(int64_t cell) const;

  void add_bits(size_t word, uint64_t bits) {
    // whoever adds the first bits marks the word
    if (!add(&words_[word], bits)) add(&occupied_[word >> 6], uint64_t(1) << (word & 63));
  }
  /// Returns what the word held before.
  static uint64_t add(uint64_t* word, uint64_t bits) {
    // reading first keeps the cache line shared where many inputs reach the same output
    const uint64_t held = __atomic_load_n(word, __ATOMIC_RELAXED);
    return (held & bits) == bits ? held : __atomic_fetch_or(word, bits, __ATOMIC_RELAXED);
  }

  Triple shape_{0, 0, 0};
  int32_t batch_ = 0;
  bool bitmap_ = false;
  int64_t size_ = 0;
  std::vector<uint64_t> words_;
  std::vector<uint64_t> occupied_;  // one bit per word that is not zero
  std::vector<uint32_t> through_;   // sites up to the end of each word; stale where the word is zero
  std::vector<uint32_t> counts_;    // sites before each chunk of words, while they are numbered
  std::vector<int64_t> cells_;
};

}  // namespace scn
