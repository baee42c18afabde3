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
  bitmap_ = cells <= kMostBitmapCells;
  const size_t words = bitmap_ ? size_t((cells + 63) / 64) + 1 : 0;
  if (finished_ && words == words_.size()) {
    for (size_t word : occupied_) words_[word] = 0;
  } else {
    words_.assign(words, 0);
    before_.resize(words);
  }
  shape_ = shape;
  batch_ = batch;
  size_ = 0;
  finished_ = false;
  occupied_.clear();
  cells_.clear();
}

int64_t SiteIndex::finish(ThreadPool& pool, std::vector<Site>* sites) {
  if (!bitmap_) {
    std::sort(cells_.begin(), cells_.end());
    cells_.erase(std::unique(cells_.begin(), cells_.end()), cells_.end());
    sites->resize(cells_.size());
    for (size_t i = 0; i < cells_.size(); ++i) (*sites)[i] = site_of(cells_[i]);
    return size_ = int64_t(cells_.size());
  }
  struct Count {
    uint32_t sites = 0, words = 0;
  };
  const int64_t words = int64_t(words_.size());
  std::vector<Count> counts(size_t((words + kWordsPerChunk - 1) / kWordsPerChunk));
  pool.for_each(words, kWordsPerChunk, [&](int64_t begin, int64_t end, int) {
    Count count;
    for (int64_t i = begin; i < end; ++i) {
      count.sites += uint32_t(__builtin_popcountll(words_[size_t(i)]));
      count.words += words_[size_t(i)] != 0;
    }
    counts[size_t(begin / kWordsPerChunk)] = count;
  });
  Count total;
  for (Count& count : counts) {
    const Count own = count;
    count = total;
    total.sites += own.sites;
    total.words += own.words;
  }
  sites->resize(total.sites);
  occupied_.resize(total.words);
  pool.for_each(words, kWordsPerChunk, [&](int64_t begin, int64_t end, int) {
    const size_t chunk = size_t(begin / kWordsPerChunk);
    size_t row = counts[chunk].sites, slot = counts[chunk].words;
    const size_t last = chunk + 1 < counts.size() ? counts[chunk + 1].words : total.words;
    for (int64_t i = begin; slot < last && i < end; ++i) {
      uint64_t word = words_[size_t(i)];
      if (!word) continue;
      before_[size_t(i)] = uint32_t(row);
      occupied_[slot++] = size_t(i);
      for (; word; word &= word - 1) (*sites)[row++] = site_of(i * 64 + __builtin_ctzll(word));
    }
  });
  finished_ = true;
  return size_ = total.sites;
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
