// SPDX-License-Identifier: Apache-2.0
#include "maps/site_index.h"

#include <algorithm>
#include <limits>

#include "error.h"

namespace scn {
namespace {

// 2^30 cells are a bitmap of 128 MiB and counts of 64 MiB: six times CenterPoint's grid with a batch of two.
constexpr int64_t kMostBitmapCells = int64_t(1) << 30;
constexpr int64_t kWordsPerChunk = 8192;

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

void SiteIndex::reset(const Triple& shape, int32_t batch) {
  const int64_t cells = count_cells(shape, batch);
  shape_ = shape;
  batch_ = batch;
  size_ = 0;
  cells_.clear();
  bitmap_ = cells <= kMostBitmapCells;
  const size_t words = bitmap_ ? size_t((cells + 63) / 64) + 1 : 0;
  words_.assign(words, 0);
  before_.resize(words);
}

int64_t SiteIndex::finish(ThreadPool& pool) {
  if (!bitmap_) {
    std::sort(cells_.begin(), cells_.end());
    cells_.erase(std::unique(cells_.begin(), cells_.end()), cells_.end());
    return size_ = int64_t(cells_.size());
  }
  const int64_t words = int64_t(words_.size());
  chunk_counts_.assign(size_t((words + kWordsPerChunk - 1) / kWordsPerChunk), 0);
  pool.for_each(words, kWordsPerChunk, [&](int64_t begin, int64_t end, int) {
    uint32_t count = 0;
    for (int64_t i = begin; i < end; ++i) {
      before_[size_t(i)] = count;
      count += uint32_t(__builtin_popcountll(words_[size_t(i)]));
    }
    chunk_counts_[size_t(begin / kWordsPerChunk)] = count;
  });
  uint32_t total = 0;
  for (uint32_t& count : chunk_counts_) {
    const uint32_t own = count;
    count = total;
    total += own;
  }
  pool.for_each(words, kWordsPerChunk, [&](int64_t begin, int64_t end, int) {
    const uint32_t offset = chunk_counts_[size_t(begin / kWordsPerChunk)];
    if (!offset) return;
    for (int64_t i = begin; i < end; ++i) before_[size_t(i)] += offset;
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

void SiteIndex::sites(ThreadPool& pool, std::vector<Site>* out) const {
  out->resize(size_t(size_));
  if (!bitmap_) {
    for (size_t i = 0; i < cells_.size(); ++i) (*out)[i] = site_of(cells_[i]);
    return;
  }
  pool.for_each(int64_t(words_.size()), kWordsPerChunk, [&](int64_t begin, int64_t end, int) {
    size_t row = before_[size_t(begin)];
    for (int64_t i = begin; i < end; ++i) {
      for (uint64_t word = words_[size_t(i)]; word; word &= word - 1) {
        (*out)[row++] = site_of(i * 64 + __builtin_ctzll(word));
      }
    }
  });
}

}  // namespace scn
