// SPDX-License-Identifier: Apache-2.0
#include "maps/site_index.h"

#include <algorithm>
#include <limits>

#include "error.h"

namespace scn {
namespace {

// 2^30 cells are a bitmap of 128 MiB and counts of 64 MiB: six times CenterPoint's grid with a batch of two.
constexpr int64_t kMostBitmapCells = int64_t(1) << 30;

int64_t count_cells(const Triple& shape, int32_t batch) {
  int64_t cells = std::max(batch, 1);
  for (int32_t n : shape) {
    if (n < 1)
      fail(ErrorKind::kSite, "A grid needs at least one cell along each axis, got ", to_string(shape), ".");
    if (cells > std::numeric_limits<int64_t>::max() / n) {
      fail(ErrorKind::kSite, "A grid of ", to_string(shape), " with batch ", batch,
           " has more cells than 63 bits can number. Use larger voxels or a smaller range.");
    }
    cells *= n;
  }
  return cells;
}

}  // namespace

std::string to_string(const Triple& t) {
  return "[" + std::to_string(t[0]) + ", " + std::to_string(t[1]) + ", " + std::to_string(t[2]) + "]";
}

SiteIndex::SiteIndex(const Triple& shape, int32_t batch) : shape_(shape), batch_(batch) {
  const int64_t cells = count_cells(shape, batch);
  bitmap_ = cells <= kMostBitmapCells;
  if (bitmap_) words_.assign(size_t((cells + 63) / 64), 0);
}

int64_t SiteIndex::finish() {
  if (bitmap_) {
    before_.resize(words_.size());
    uint32_t count = 0;
    for (size_t i = 0; i < words_.size(); ++i) {
      before_[i] = count;
      count += uint32_t(__builtin_popcountll(words_[i]));
    }
    size_ = count;
  } else {
    std::sort(cells_.begin(), cells_.end());
    cells_.erase(std::unique(cells_.begin(), cells_.end()), cells_.end());
    size_ = int64_t(cells_.size());
  }
  return size_;
}

int32_t SiteIndex::rank_sorted(int64_t cell) const {
  const auto it = std::lower_bound(cells_.begin(), cells_.end(), cell);
  return it != cells_.end() && *it == cell ? int32_t(it - cells_.begin()) : -1;
}

Site SiteIndex::site_of(int64_t cell) const {
  Site s;
  s.x = int32_t(cell % shape_[2]);
  cell /= shape_[2];
  s.y = int32_t(cell % shape_[1]);
  cell /= shape_[1];
  s.z = int32_t(cell % shape_[0]);
  s.batch = int32_t(cell / shape_[0]);
  return s;
}

std::vector<Site> SiteIndex::sites() const {
  std::vector<Site> out;
  out.reserve(size_t(size_));
  if (!bitmap_) {
    for (int64_t cell : cells_) out.push_back(site_of(cell));
    return out;
  }
  for (size_t i = 0; i < words_.size(); ++i) {
    for (uint64_t word = words_[i]; word; word &= word - 1) {
      out.push_back(site_of(int64_t(i) * 64 + __builtin_ctzll(word)));
    }
  }
  return out;
}

}  // namespace scn
