// SPDX-License-Identifier: Apache-2.0
#include "cpu/maps/site_index.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace scn {
namespace {

// 2^30 cells are a bitmap of 128 MiB and counts of 64 MiB: six times CenterPoint's grid with a batch of two.
constexpr int64_t kMostBitmapCells = int64_t(1) << 30;
constexpr int64_t kGroupsPerChunk = 128;  // of 64 words

Size count_cells(const Triple& shape, int32_t batch) { return Size::of(shape) * batch; }

/// Words of a bitmap; there is one more, so that the next one can always be read.
size_t word_count(Size cells) { return size_t((cells.value() + 63) / 64) + 1; }

}  // namespace

bool SiteIndex::fits_bitmap(const Triple& shape, int32_t batch) {
  return count_cells(shape, batch) <= kMostBitmapCells;
}

Size SiteIndex::bitmap_bytes(const Triple& shape, int32_t batch) {
  if (!fits_bitmap(shape, batch)) return 0;
  const size_t words = word_count(count_cells(shape, batch));
  return Size(words) * (sizeof(uint64_t) + sizeof(uint32_t)) + Size(words / 64 + 1) * sizeof(uint64_t);
}

void SiteIndex::reset(const Triple& shape, int32_t batch, ThreadPool& pool) {
  if (*std::min_element(shape.begin(), shape.end()) < 1)
    fail(ErrorKind::kSite, "A grid needs at least one cell along each axis, got ", to_string(shape), ".");
  if (batch < 1) fail(ErrorKind::kSite, "A batch needs at least one grid, got ", batch, ".");
  const Size cells = count_cells(shape, batch);
  if (cells.too_large()) {
    fail(ErrorKind::kSite, "A grid of ", to_string(shape), " with batch ", batch,
         " has more cells than 63 bits can number. Use larger voxels or a smaller range.");
  }
  const bool bitmap = cells <= kMostBitmapCells;
  const size_t words = bitmap ? word_count(cells) : 0;
  if (words == words_.size()) {
    pool.for_each(int64_t(occupied_.size()), 8 * kGroupsPerChunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t group = begin; group < end; ++group) {
        for (uint64_t bits = occupied_[size_t(group)]; bits; bits &= bits - 1) {
          words_[size_t(group * 64 + __builtin_ctzll(bits))] = 0;
        }
        occupied_[size_t(group)] = 0;
      }
    });
  } else {
    // Three arrays of one size, or none: where memory ends in between, the next frame starts afresh.
    words_.clear();
    occupied_.assign((words + 63) / 64, 0);
    through_.resize(words);
    words_.assign(words, 0);
  }
  bitmap_ = bitmap;
  shape_ = shape;
  batch_ = batch;
  size_ = 0;
  cells_.clear();
}

int64_t SiteIndex::finish(ThreadPool& pool, std::vector<Site>* sites, int64_t most) {
  if (!bitmap_) {
    std::sort(cells_.begin(), cells_.end());
    cells_.erase(std::unique(cells_.begin(), cells_.end()), cells_.end());
    if (int64_t(cells_.size()) > most) return int64_t(cells_.size());
    sites->resize(cells_.size());
    for (size_t i = 0; i < cells_.size(); ++i) (*sites)[i] = site_of(cells_[i]);
    return size_ = int64_t(cells_.size());
  }
  const int64_t groups = int64_t(occupied_.size());
  counts_.resize(size_t((groups + kGroupsPerChunk - 1) / kGroupsPerChunk));
  pool.for_each(groups, kGroupsPerChunk, [&](int64_t begin, int64_t end, int) {
    uint32_t count = 0;
    for (int64_t group = begin; group < end; ++group) {
      for (uint64_t bits = occupied_[size_t(group)]; bits; bits &= bits - 1) {
        count += uint32_t(__builtin_popcountll(words_[size_t(group * 64 + __builtin_ctzll(bits))]));
      }
    }
    counts_[size_t(begin / kGroupsPerChunk)] = count;
  });
  uint32_t total = 0;
  for (uint32_t& count : counts_) {
    const uint32_t own = count;
    count = total;
    total += own;
  }
  if (total > most) return total;
  sites->resize(total);
  pool.for_each(groups, kGroupsPerChunk, [&](int64_t begin, int64_t end, int) {
    uint32_t row = counts_[size_t(begin / kGroupsPerChunk)];
    for (int64_t group = begin; group < end; ++group) {
      for (uint64_t bits = occupied_[size_t(group)]; bits; bits &= bits - 1) {
        const int64_t at = group * 64 + __builtin_ctzll(bits);
        Site s = site_of(at * 64);
        int32_t start = s.x;  // coordinate of the word's first cell in the row of cells that s lies in
        for (uint64_t word = words_[size_t(at)]; word; word &= word - 1) {
          s.x = start + __builtin_ctzll(word);
          while (s.x >= shape_[2]) {  // on to the next row, plane or grid
            start -= shape_[2];
            s.x -= shape_[2];
            if (++s.y < shape_[1]) continue;
            s.y = 0;
            if (++s.z < shape_[0]) continue;
            s.z = 0;
            ++s.batch;
          }
          (*sites)[row++] = s;
        }
        through_[size_t(at)] = row;
      }
    }
  });
  return size_ = total;
}

int32_t SiteIndex::rank_sorted(int64_t cell) const {
  const auto it = std::lower_bound(cells_.begin(), cells_.end(), cell);
  return it != cells_.end() && *it == cell ? int32_t(it - cells_.begin()) : -1;
}

Site SiteIndex::site_of(int64_t cell) const {
  Site s;
  if (cell < (int64_t(1) << 32)) {  // 32-bit divisions are several times faster
    uint32_t rest = uint32_t(cell);
    s.x = int32_t(rest % uint32_t(shape_[2]));
    rest /= uint32_t(shape_[2]);
    s.y = int32_t(rest % uint32_t(shape_[1]));
    rest /= uint32_t(shape_[1]);
    s.z = int32_t(rest % uint32_t(shape_[0]));
    s.batch = int32_t(rest / uint32_t(shape_[0]));
    return s;
  }
  s.x = int32_t(cell % shape_[2]);
  cell /= shape_[2];
  s.y = int32_t(cell % shape_[1]);
  cell /= shape_[1];
  s.z = int32_t(cell % shape_[0]);
  s.batch = int32_t(cell / shape_[0]);
  return s;
}

}  // namespace scn
