// SPDX-License-Identifier: Apache-2.0
#include "cpu/maps/site_set.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "core/error.h"
#include "core/failures.h"

namespace scn {
namespace {

constexpr int64_t kSitesPerChunk = 2048;

/// Calls visit(z, y, x) for every output cell that `site` reaches.
template <typename Visit>
void for_each_output(const Reach& reach, ReachRows& rows, const Site& site, const Visit& visit) {
  const int32_t nz = reach[0].kernel, ny = reach[1].kernel, nx = reach[2].kernel;
  const int32_t *zs = rows.outputs(0, site.z), *ys = rows.outputs(1, site.y), *xs = rows.outputs(2, site.x);
  for (int32_t kz = 0; kz < nz; ++kz) {
    if (zs[kz] < 0) continue;
    for (int32_t ky = 0; ky < ny; ++ky) {
      if (ys[ky] < 0) continue;
      for (int32_t kx = 0; kx < nx; ++kx) {
        if (xs[kx] >= 0) visit(zs[kz], ys[ky], xs[kx]);
      }
    }
  }
}

/// Indexes the sites that lie inside the grid, and throws if there are others.
void insert_sites(const Site* indices, int64_t count, const std::string& layer, ThreadPool& pool,
                  SiteIndex* index) {
  std::atomic<int64_t> wrong{0};
  std::atomic<int64_t> first{count};
  const bool bitmap = index->is_bitmap();
  pool.for_each(count, bitmap ? kSitesPerChunk : count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const Site& s = indices[i];
      if (uint32_t(s.batch) < uint32_t(index->batch()) && index->contains_cell(s.z, s.y, s.x)) {
        bitmap ? index->insert(index->cell(s)) : index->append(index->cell(s));
        continue;
      }
      ++wrong;
      int64_t seen = first;
      while (i < seen && !first.compare_exchange_weak(seen, i)) {
      }
    }
  });
  if (!wrong) return;
  fail_outside(wrong, count, indices[first], first, index->batch(), index->shape(), layer);
}

}  // namespace

void index_sites(const Site* indices, int64_t count, const Triple& shape, int32_t batch,
                 const std::string& layer, ThreadPool& pool, SiteSet* set, std::vector<int32_t>* order) {
  if (count > std::numeric_limits<int32_t>::max())
    fail(ErrorKind::kSite, layer, ": ", count, " sites are more than 32 bits can number.");
  SiteIndex& index = set->index;
  index.reset(shape, batch, pool);
  set->given.resize(count);
  Site* const given = set->given.data();
  pool.for_each(count, 8 * kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
    std::copy(indices + begin, indices + end, given + begin);
  });
  insert_sites(given, count, layer, pool, &index);
  std::vector<Site> ascending;
  std::vector<Site>& in_order = order ? set->sites : ascending;
  const bool distinct = index.finish(pool, &in_order) == count;
  std::vector<int32_t>& row_of_rank = order ? *order : set->row_of_rank;
  row_of_rank.resize(size_t(index.size()));
  if (!distinct) {
    std::fill(row_of_rank.begin(), row_of_rank.end(), -1);
    for (int64_t i = 0; i < count; ++i) {
      int32_t& row = row_of_rank[size_t(index.rank(index.cell(given[i])))];
      if (row >= 0) fail_duplicate(given[i], i, layer);
      row = int32_t(i);
    }
  }
  pool.for_each(count, kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) row_of_rank[size_t(index.rank(index.cell(given[i])))] = int32_t(i);
  });
  if (order) {
    set->row_of_rank.clear();
  } else {
    set->sites.assign(given, given + count);
  }
}
namespace {

/// Collects the outputs that inputs of one row of cells reach, 64 cells of the output row at a time, and
/// marks them in all output rows at once: inputs come in order, so that most find their word at hand.
class OutputMarker {
 public:
  OutputMarker(const Reach& reach, SiteIndex* index) : reach_(reach), rows_(reach), index_(*index) {}
  ~OutputMarker() { flush(); }

  void add(const Site& s) {
    const AxisReach::Span span = reach_[2].spans[size_t(s.x)];
    const int32_t word = span.first >> 6, shift = span.first & 63;
    if (word != word_ || s.y != row_.y || s.z != row_.z || s.batch != row_.batch) {
      flush();
      word_ = word;
      row_ = s;
    }
    bits_[0] |= uint64_t(span.bits) << shift;
    bits_[1] |= uint64_t(span.bits) >> 1 >> (63 - shift);
  }

 private:
  void flush() {
    if (!(bits_[0] | bits_[1])) return;
    const int32_t nz = reach_[0].kernel, ny = reach_[1].kernel;
    const int32_t *zs = rows_.outputs(0, row_.z), *ys = rows_.outputs(1, row_.y);
    for (int32_t kz = 0; kz < nz; ++kz) {
      if (zs[kz] < 0) continue;
      for (int32_t ky = 0; ky < ny; ++ky) {
        if (ys[ky] < 0) continue;
        const int64_t cell = index_.cell(row_.batch, zs[kz], ys[ky], word_ * 64);
        if (bits_[0]) index_.insert_run(cell, bits_[0]);
        if (bits_[1]) index_.insert_run(cell + 64, bits_[1]);
      }
    }
    bits_[0] = bits_[1] = 0;
  }

  const Reach& reach_;
  ReachRows rows_;
  SiteIndex& index_;
  Site row_{-1, -1, -1, -1};
  int32_t word_ = -1;
  uint64_t bits_[2] = {0, 0};
};

}  // namespace

Size cells_to_sort(const SiteSet& input, const ConvGeometry& geometry, const Reach& reach) {
  Size cells = 0;
  if (SiteIndex::fits_bitmap(geometry.output_shape, input.index.batch())) return cells;
  ReachRows rows(reach);
  for (const Site& site : input.sites) {
    Size own = 1;
    const int32_t at[3] = {site.z, site.y, site.x};
    for (size_t axis = 0; axis < 3; ++axis) {
      const int32_t* const out = rows.outputs(axis, at[axis]);
      own *= reach[axis].kernel - int64_t(std::count(out, out + reach[axis].kernel, -1));
    }
    cells += own;
  }
  return cells;
}

void begin_output_sites(const Triple& shape, int32_t batch, ThreadPool& pool, SiteSet* output) {
  output->index.reset(shape, batch, pool);
}

void mark_output_sites(const SiteSet& input, const Reach& reach, ThreadPool& pool, SiteSet* output) {
  SiteIndex& index = output->index;
  const bool spans = !reach[2].spans.empty();
  if (index.is_bitmap()) {
    pool.for_each(input.size(), kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
      OutputMarker marker(reach, &index);
      ReachRows rows(reach);
      for (int64_t row = begin; row < end; ++row) {
        const Site& site = input.sites[size_t(row)];
        if (spans) {
          marker.add(site);
          continue;
        }
        for_each_output(reach, rows, site, [&](int32_t z, int32_t y, int32_t x) {
          index.insert(index.cell(site.batch, z, y, x));
        });
      }
    });
  } else {
    ReachRows rows(reach);
    for (const Site& site : input.sites) {
      for_each_output(reach, rows, site, [&](int32_t z, int32_t y, int32_t x) {
        index.append(index.cell(site.batch, z, y, x));
      });
    }
  }
}

void finish_output_sites(int64_t output_bound, const std::string& layer, ThreadPool& pool, SiteSet* output) {
  const int64_t count = output->index.finish(pool, &output->sites, output_bound);
  if (count > output_bound) fail_bound(count, output_bound, "output sites", layer);
  output->row_of_rank.clear();
}

void output_sites(const SiteSet& input, const ConvGeometry& geometry, const Reach& reach,
                  int64_t output_bound, const std::string& layer, ThreadPool& pool, SiteSet* output) {
  begin_output_sites(geometry.output_shape, input.index.batch(), pool, output);
  mark_output_sites(input, reach, pool, output);
  finish_output_sites(output_bound, layer, pool, output);
}

}  // namespace scn
