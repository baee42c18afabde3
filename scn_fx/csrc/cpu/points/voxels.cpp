// SPDX-License-Identifier: Apache-2.0
#include "cpu/points/voxels.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/exact_sum.h"
#include "core/points.h"
#include "scn_fx/half.h"

namespace scn {
namespace {

constexpr int64_t kPointsPerChunk = 2048, kSitesPerChunk = 512;
constexpr int64_t kPointsAhead = 12;
const std::string kPoints = "The points";

struct Half {
  uint16_t bits;
};
inline float value_of(Half v) { return half_to_float(v.bits); }
inline float value_of(float v) { return v; }
inline double value_of(double v) { return v; }

/// Magnitudes as numbers that compare in the same order, and that of infinity.
inline uint32_t magnitude_of(Half v) { return v.bits & 0x7fffu; }
inline uint32_t magnitude_of(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof(bits));
  return bits & 0x7fffffffu;
}
inline uint64_t magnitude_of(double v) {
  uint64_t bits;
  std::memcpy(&bits, &v, sizeof(bits));
  return bits & ~(uint64_t(1) << 63);
}
template <typename T>
T number(double v) {
  return T(v);
}
template <>
Half number<Half>(double v) {
  return {float_to_half(float(v))};
}

/// Values from here on, or zero, are whole numbers of 2^-64.
inline double least_whole(Half) { return 0.0; }
inline double least_whole(float) { return 0x1p-41; }
inline double least_whole(double) { return 0x1p-12; }

/// The scan that a point belongs to; asked for ascending points.
class ScanCounter {
 public:
  ScanCounter(const PointRows& points, int64_t first) : entries_(points.entries) {
    end_ = entries_ ? entries_[0] : points.count;
    find(first);
  }
  int32_t find(int64_t point) {
    while (point >= end_) end_ += entries_[++scan_];
    return scan_;
  }

 private:
  const int64_t* entries_;
  int64_t end_;
  int32_t scan_ = 0;
};

/// Points that cannot be averaged: how many, and the first.
class BadPoints {
 public:
  explicit BadPoints(int64_t count) : first_(count) {}
  void add(int64_t point) {
    ++count_;
    int64_t seen = first_;
    while (point < seen && !first_.compare_exchange_weak(seen, point)) {
    }
  }
  int64_t count() const { return count_; }
  int64_t first() const { return first_; }

 private:
  std::atomic<int64_t> count_{0}, first_;
};

template <typename T>
class Averager {
 public:
  Averager(const PointRows& points, const PointCells& grid, ThreadPool& pool, SiteSet* set, PointMeans* out)
      : points_(points),
        grid_(grid),
        data_(static_cast<const T*>(points.data)),
        pool_(pool),
        set_(*set),
        out_(*out) {}

  void find_cells() {
    BadPoints not_finite(points_.count), too_large(points_.count);
    std::atomic<int64_t> outside{0};
    SiteIndex& index = set_.index;
    const bool bitmap = index.is_bitmap(), alone = pool_.size() == 1;
    const auto infinite = magnitude_of(number<T>(std::numeric_limits<double>::infinity()));
    const auto large = grid_.max_points ? infinite : magnitude_of(number<T>(kExactSumLimit));
    int64_t* const cells = out_.cells.data();
    pool_.for_each(points_.count, kPointsPerChunk, [&](int64_t begin, int64_t end, int) {
      ScanCounter scans(points_, begin);
      int64_t dropped = 0;
      for (int64_t i = begin; i < end; ++i) {
        const T* const point = data_ + i * points_.columns;
        auto largest = magnitude_of(point[0]);
        for (int32_t c = 1; c < points_.columns; ++c) largest = std::max(largest, magnitude_of(point[c]));
        cells[i] = -1;
        int32_t at[3];
        if (largest >= infinite) {
          not_finite.add(i);
        } else if (!inside(point, at)) {
          ++dropped;
        } else if (largest >= large) {
          too_large.add(i);
        } else {
          cells[i] = index.cell(site_of_cells(grid_, scans.find(i), at));
        }
      }
      outside += dropped;
      if (!bitmap) return;
      for (int64_t i = begin; i < end; ++i) {
        if (i + kPointsAhead < end && cells[i + kPointsAhead] >= 0) index.prefetch(cells[i + kPointsAhead]);
        if (cells[i] < 0) continue;
        alone ? index.insert_alone(cells[i]) : index.insert(cells[i]);
      }
    });
    if (not_finite.count()) fail_points_not_finite(not_finite.count(), not_finite.first());
    if (too_large.count()) fail_points_too_large(too_large.count(), too_large.first());
    out_.dropped = outside;
    if (bitmap) return;
    for (int64_t i = 0; i < points_.count; ++i) {
      if (cells[i] >= 0) index.append(cells[i]);
    }
  }

  void list_points() {
    const int64_t sites = set_.size();
    std::fill_n(out_.counts.data(), sites, 0);
    const bool alone = pool_.size() == 1;
    const SiteIndex& index = set_.index;
    const bool bitmap = index.is_bitmap();
    const int64_t* const cells = out_.cells.data();
    int32_t *const rows = out_.rows.data(), *const places = out_.places.data(),
                   *const counts = out_.counts.data();
    pool_.for_each(points_.count, kPointsPerChunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        if (bitmap && i + kPointsAhead < end && cells[i + kPointsAhead] >= 0)
          index.prefetch(cells[i + kPointsAhead]);
        const int32_t row = cells[i] < 0 ? -1 : index.rank(cells[i]);
        rows[i] = row;
        if (row < 0) continue;
        places[i] = alone ? counts[row]++ : __atomic_fetch_add(&counts[row], 1, __ATOMIC_RELAXED);
      }
    });
    int64_t* const starts = out_.starts.data();
    starts[0] = 0;
    for (int64_t row = 0; row < sites; ++row) starts[row + 1] = starts[row] + counts[row];
    int32_t* const listed = out_.listed.data();
    pool_.for_each(points_.count, kPointsPerChunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        if (rows[i] >= 0) listed[starts[rows[i]] + places[i]] = int32_t(i);
      }
    });
  }

  void average() {
    std::atomic<int64_t> surplus{0};
    pool_.for_each(set_.size(), kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
      int64_t left_out = 0;
      const int64_t* const starts = out_.starts.data();
      int32_t *const listed = out_.listed.data(), *const last = listed + starts[set_.size()];
      for (int64_t row = begin; row < end; ++row) {
        int32_t* const first = listed + starts[row];
        const int32_t count = out_.counts.data()[row];
        for (int32_t* at = first + kPointsAhead; at < std::min(first + kPointsAhead + count, last); ++at)
          __builtin_prefetch(data_ + int64_t(*at) * points_.columns);
        float* const mean = out_.means.data() + row * points_.columns;
        if (grid_.max_points == 0) {
          mean_of_all(first, count, mean);
        } else {
          const int32_t taken = std::min(count, grid_.max_points);
          // Threads list points in any order.
          std::partial_sort(first, first + taken, first + count);
          mean_of_first(first, taken, mean);
          left_out += count - taken;
        }
      }
      surplus += left_out;
    });
    out_.surplus = surplus;
  }

 private:
  bool inside(const T* point, int32_t* at) const {
    const auto x = value_of(point[0]), y = value_of(point[1]), z = value_of(point[2]);
    return grid_.float64 ? cells_of<double>(grid_, x, y, z, at) : cells_of(grid_, x, y, z, at);
  }

  /// Sums in double are exact nearly always, and say so: what an addition loses is a number of its own
  /// (TwoSum). Where one lost something, the columns are summed once more.
  template <int width>
  void mean_of_columns(const int32_t* list, int32_t count, int32_t first, float* mean) const {
    double sum[width] = {}, lost[width] = {};
    bool whole = true;
    for (int32_t k = 0; k < count; ++k) {
      const T* const point = data_ + int64_t(list[k]) * points_.columns + first;
      for (int c = 0; c < width; ++c) {
        const double v = value_of(point[c]), before = sum[c], after = before + v, added = after - before;
        sum[c] = after;
        lost[c] += std::fabs((before - (after - added)) + (v - added));
        whole = whole && (std::fabs(v) >= least_whole(T{}) || v == 0.0);
      }
    }
    double all_lost = 0.0;
    for (int c = 0; c < width; ++c) all_lost += lost[c];
    if (whole && all_lost == 0.0) {
      for (int c = 0; c < width; ++c) mean[first + c] = float(sum[c] / double(count));
      return;
    }
    for (int c = 0; c < width; ++c) {
      ExactSum exact;
      for (int32_t k = 0; k < count; ++k)
        exact.add(exact_term(value_of(data_[int64_t(list[k]) * points_.columns + first + c])));
      mean[first + c] = exact_mean(exact, count);
    }
  }

  /// The mean of one point is the point, but for what lies below 2^-64, and for the sign of a zero.
  bool is_own_mean(int32_t point, float* mean) const {
    const T* const values = data_ + int64_t(point) * points_.columns;
    bool whole = true;
    for (int32_t c = 0; c < points_.columns; ++c) {
      const auto v = value_of(values[c]);
      mean[c] = float(v) + 0.0f;
      whole = whole && (std::fabs(v) >= least_whole(T{}) || v == 0);
    }
    return whole;
  }

  void mean_of_all(const int32_t* list, int32_t count, float* mean) const {
    if (count == 1 && is_own_mean(list[0], mean)) return;
    int32_t c = 0;
    for (; c + 4 <= points_.columns; c += 4) mean_of_columns<4>(list, count, c, mean);
    const int32_t rest = points_.columns - c;
    if (rest == 1) mean_of_columns<1>(list, count, c, mean);
    if (rest == 2) mean_of_columns<2>(list, count, c, mean);
    if (rest == 3) mean_of_columns<3>(list, count, c, mean);
  }

  void mean_of_first(const int32_t* list, int32_t count, float* mean) const {
    for (int32_t c = 0; c < points_.columns; ++c) {
      float sum = 0.0f;
      for (int32_t k = 0; k < count; ++k)
        sum += float(value_of(data_[int64_t(list[k]) * points_.columns + c]));
      mean[c] = sum / float(count);
    }
  }

  const PointRows& points_;
  const PointCells& grid_;
  const T* const data_;
  ThreadPool& pool_;
  SiteSet& set_;
  PointMeans& out_;
};

template <typename T>
void average_as(const PointRows& points, const PointCells& grid, ThreadPool& pool, MemoryBudget& budget,
                SiteSet* set, PointMeans* out) {
  Averager<T> averager(points, grid, pool, set, out);
  averager.find_cells();
  set->index.finish(pool, &set->sites);
  const int64_t sites = set->size();
  budget.take(Size(sites) * (sizeof(Site) + sizeof(int32_t) + sizeof(int64_t)), kPoints, "their voxels");
  budget.take(Size(sites) * points.columns * sizeof(float), kPoints, "the means of their voxels");
  out->means.resize((Size(sites) * points.columns).value());
  out->counts.resize(sites);
  out->starts.resize(sites + 1);
  averager.list_points();
  averager.average();
}

}  // namespace

void average_points(const PointRows& points, const PointCells& grid, const Triple& shape, ThreadPool& pool,
                    MemoryBudget& budget, SiteSet* set, PointMeans* out) {
  if (points.count > std::numeric_limits<int32_t>::max())
    fail(ErrorKind::kSite, points.count,
         " points are more than 32 bits can number. Pass fewer scans at a time.");
  budget.take(SiteIndex::bitmap_bytes(shape, points.batch), kPoints, "the index of their grid");
  if (!SiteIndex::fits_bitmap(shape, points.batch))
    budget.take(Size(points.count) * sizeof(int64_t), kPoints, "their cells");
  budget.take(Size(points.count) * (sizeof(int64_t) + 3 * sizeof(int32_t)), kPoints, "their places");
  set->index.reset(shape, points.batch, pool);
  set->row_of_rank.clear();
  out->cells.resize(points.count);
  out->rows.resize(points.count);
  out->places.resize(points.count);
  out->listed.resize(points.count);
  switch (points.type) {
    case PointType::kFloat16:
      return average_as<Half>(points, grid, pool, budget, set, out);
    case PointType::kFloat32:
      return average_as<float>(points, grid, pool, budget, set, out);
    case PointType::kFloat64:
      return average_as<double>(points, grid, pool, budget, set, out);
  }
}

}  // namespace scn
