// SPDX-License-Identifier: Apache-2.0
#include "maps/kernel_map.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "error.h"
#include "maps/site_errors.h"

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

int32_t AxisReach::output_of(int32_t in, int32_t offset) const {
  int64_t out = -1;
  if (transposed) {
    out = int64_t(in) * stride - padding + int64_t(offset) * dilation;
  } else {
    const int64_t scaled = int64_t(in) + padding - int64_t(offset) * dilation;
    if (scaled >= 0 && scaled % stride == 0) out = scaled / stride;
  }
  return out >= 0 && out < outputs ? int32_t(out) : -1;
}

int32_t AxisReach::input_of(int32_t out, int32_t offset) const {
  int64_t in = -1;
  if (transposed) {
    const int64_t scaled = int64_t(out) + padding - int64_t(offset) * dilation;
    if (scaled >= 0 && scaled % stride == 0) in = scaled / stride;
  } else {
    in = int64_t(out) * stride - padding + int64_t(offset) * dilation;
  }
  return in >= 0 && in < inputs ? int32_t(in) : -1;
}

namespace {

// Of both tables of an axis together: four times those of the largest LiDAR grids.
constexpr int64_t kMostTableEntries = int64_t(1) << 18;

Size table_entries(const ConvGeometry& g, size_t axis) {
  return (Size(g.input_shape[axis]) + g.output_shape[axis]) * g.kernel[axis];
}

std::vector<AxisReach::Span> make_spans(const AxisReach& r) {
  std::vector<AxisReach::Span> spans;
  for (size_t in = 0; in < r.output.size(); in += size_t(r.kernel)) {
    const auto begin = r.output.begin() + int64_t(in), end = begin + r.kernel;
    AxisReach::Span span{0, 0};
    for (auto out = begin; out != end; ++out) {
      if (*out >= 0 && (!span.bits || *out < span.first)) span = {*out, 1};
    }
    for (auto out = begin; out != end; ++out) {
      if (*out < 0) continue;
      if (*out - span.first >= 32) return {};
      span.bits |= uint32_t(1) << (*out - span.first);
    }
    spans.push_back(span);
  }
  return spans;
}

}  // namespace

Size reach_bytes(const ConvGeometry& g) {
  Size bytes = 0;
  for (size_t axis = 0; axis < 3; ++axis) {
    if (table_entries(g, axis) > kMostTableEntries) continue;
    bytes += table_entries(g, axis) * sizeof(int32_t) + Size(g.input_shape[axis]) * sizeof(AxisReach::Span);
  }
  return bytes;
}

Reach make_reach(const ConvGeometry& g) {
  Reach reach;
  for (size_t axis = 0; axis < 3; ++axis) {
    AxisReach& r = reach[axis];
    r.kernel = g.kernel[axis];
    r.stride = g.stride[axis];
    r.padding = g.padding[axis];
    r.dilation = g.dilation[axis];
    r.inputs = g.input_shape[axis];
    r.outputs = g.output_shape[axis];
    r.transposed = g.transposed;
    if (table_entries(g, axis) > kMostTableEntries) continue;
    r.output.reserve((Size(r.inputs) * r.kernel).count());
    r.input.reserve((Size(r.outputs) * r.kernel).count());
    for (int32_t in = 0; in < r.inputs; ++in) {
      for (int32_t k = 0; k < r.kernel; ++k) r.output.push_back(r.output_of(in, k));
    }
    for (int32_t out = 0; out < r.outputs; ++out) {
      for (int32_t k = 0; k < r.kernel; ++k) r.input.push_back(r.input_of(out, k));
    }
    r.spans = make_spans(r);
  }
  return reach;
}

ReachRows::ReachRows(const Reach& reach) : reach_(reach) {
  for (size_t axis = 0; axis < 3; ++axis) {
    if (!reach[axis].has_tables()) computed_[axis].resize(size_t(reach[axis].kernel));
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

void output_sites(const SiteSet& input, const ConvGeometry& geometry, const Reach& reach,
                  int64_t output_bound, const std::string& layer, ThreadPool& pool, SiteSet* output) {
  SiteIndex& index = output->index;
  index.reset(geometry.output_shape, input.index.batch(), pool);
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
  const int64_t count = index.finish(pool, &output->sites, output_bound);
  if (count > output_bound) fail_bound(count, output_bound, "output sites", layer);
  output->row_of_rank.clear();
}

namespace {

Size input_room(int64_t rows, int32_t offsets) {
  const int64_t chunks = Size(rows).rounded_up(KernelMap::kChunkRows).value() / KernelMap::kChunkRows;
  return Size(chunks) * (Size(KernelMap::kChunkRows) * offsets + kMapPadding) + kMapPadding;
}

}  // namespace

Size KernelMap::bytes_for(int64_t rows, int32_t offsets) {
  return Size(rows) * (Size(offsets).rounded_up(64).value() / 64) * sizeof(uint64_t) +
         Size(rows) * sizeof(int64_t) + input_room(rows, offsets) * sizeof(int32_t);
}

void KernelMap::reset(int64_t rows, int32_t offsets) {
  offsets_ = offsets;
  mask_words_ = (offsets + 63) / 64;
  masks_.resize((Size(rows) * mask_words_).value());
  first_.resize(rows);
  inputs_.resize(input_room(rows, offsets).value());
}

int64_t KernelMap::pairs() const {
  int64_t count = 0;
  for (int64_t i = 0; i < masks_.size(); ++i) count += __builtin_popcountll(masks_.data()[i]);
  return count;
}

namespace {

/// Writes the mask of a row and appends its neighbours; returns where the next row's begin. Entries are read
/// once; `wrong` becomes one that is no input row, if there is any.
int32_t* compress_row(const int32_t* dense, int32_t offsets, int64_t input_rows, uint64_t* mask,
                      int32_t* inputs, int32_t* wrong) {
  for (int32_t begin = 0; begin < offsets; begin += 64, ++mask) {
    *mask = 0;
    const int32_t end = std::min(offsets, begin + 64);
    for (int32_t k = begin; k < end; ++k) {
      const int32_t input = *static_cast<const volatile int32_t*>(dense + k);
      if (input < -1 || input >= input_rows) *wrong = input;
      const bool there = input >= 0;
      *mask |= uint64_t(there) << (k - begin);
      *inputs = input;  // overwritten by the next one if there is none
      inputs += there;
    }
  }
  return inputs;
}

/// The rows of cells that one output site reads: found once for all outputs of a row.
class InputRows {
 public:
  struct Row {
    int64_t cell;    // at x = 0
    int32_t offset;  // at the first x offset
  };

  /// `found` has room for room(reach) rows.
  InputRows(const SiteIndex& index, const Reach& reach, void* found)
      : index_(index), reach_(reach), rows_(reach), found_(static_cast<Row*>(found)) {}
  static Size room(const Reach& reach) { return Size(reach[0].kernel) * reach[1].kernel; }

  const Row* begin() const { return found_; }
  const Row* end() const { return found_ + count_; }

  void find(const Site& out) {
    if (out.y == row_.y && out.z == row_.z && out.batch == row_.batch) return;
    row_ = out;
    const int32_t nz = reach_[0].kernel, ny = reach_[1].kernel, nx = reach_[2].kernel;
    const int32_t *zs = rows_.inputs(0, out.z), *ys = rows_.inputs(1, out.y);
    count_ = 0;
    for (int32_t kz = 0; kz < nz; ++kz) {
      for (int32_t ky = 0; ky < ny; ++ky) {
        if (zs[kz] < 0 || ys[ky] < 0) continue;
        found_[count_++] = {index_.cell(out.batch, zs[kz], ys[ky], 0), (kz * ny + ky) * nx};
      }
    }
  }

 private:
  const SiteIndex& index_;
  const Reach& reach_;
  ReachRows rows_;
  Site row_{-1, -1, -1, -1};
  Row* found_;
  size_t count_ = 0;
};

/// Fills a map run by run: the inputs along x of an output are neighbours in the bitmap. kSmall: runs of at
/// most four, and a mask of one word.
template <bool kSmall>
void fill_runs(const SiteIndex& index, const Site* sites, int64_t rows, const ConvGeometry& g,
               const Reach& reach, ThreadPool& pool, KernelMap* map) {
  const int32_t width = g.kernel[2], limit = index.shape()[2], mask_words = map->view().mask_words;
  const int32_t stride = g.stride[2], padding = g.padding[2];
  pool.reserve_scratch((InputRows::room(reach) * sizeof(InputRows::Row)).value());
  pool.for_each(rows, KernelMap::kChunkRows, [&](int64_t begin, int64_t end, int thread) {
    InputRows input_rows(index, reach, pool.scratch(thread));
    const SiteIndex::Bits cells = index.bits();
    int32_t* inputs = map->chunk_inputs(begin);
    for (int64_t row = begin; row < end; ++row) {
      map->set_first(row, inputs);
      input_rows.find(sites[row]);
      const int32_t x = sites[row].x * stride - padding;
      // offsets left of the grid, and those right of it
      const int32_t skip = std::max(0, -x), inside = std::min(width, limit - x) - skip;
      uint64_t* mask = map->mask(row);
      uint64_t small_mask = 0;
      if (!kSmall) std::fill(mask, mask + mask_words, 0);
      if (inside > 0) {
        for (const InputRows::Row& in : input_rows) {
          int32_t rank;
          const uint64_t bits = cells.run(in.cell + (x + skip), inside, &rank);
          const int32_t count = __builtin_popcountll(bits), k = in.offset + skip;
          // four at a time without asking how many there are; the next run overwrites what is too much
          for (int32_t j = 0; j < 4; ++j) inputs[j] = rank + j;
          if (kSmall) {
            small_mask |= bits << k;
          } else {
            for (int32_t j = 4; j < count; ++j) inputs[j] = rank + j;
            mask[k >> 6] |= bits << (k & 63);
            if ((k & 63) + inside > 64) mask[(k >> 6) + 1] |= bits >> (64 - (k & 63));
          }
          inputs += count;
        }
      }
      if (kSmall) *mask = small_mask;
    }
  });
}

/// Fills a map cell by cell: any geometry, any index.
void fill_cells(const SiteSet& set, const Site* sites, int64_t rows, const Reach& reach, ThreadPool& pool,
                KernelMap* map) {
  const SiteIndex& index = set.index;
  const int32_t nz = reach[0].kernel, ny = reach[1].kernel, nx = reach[2].kernel;
  const int32_t mask_words = map->view().mask_words;
  pool.for_each(rows, KernelMap::kChunkRows, [&](int64_t begin, int64_t end, int) {
    ReachRows reached(reach);
    int32_t* inputs = map->chunk_inputs(begin);
    for (int64_t row = begin; row < end; ++row) {
      const Site& site = sites[row];
      const int32_t *zs = reached.inputs(0, site.z), *ys = reached.inputs(1, site.y),
                    *xs = reached.inputs(2, site.x);
      uint64_t* const mask = map->mask(row);
      map->set_first(row, inputs);
      std::fill(mask, mask + mask_words, 0);
      int32_t k = 0;
      for (int32_t kz = 0; kz < nz; ++kz) {
        for (int32_t ky = 0; ky < ny; ++ky) {
          for (int32_t kx = 0; kx < nx; ++kx, ++k) {
            if (zs[kz] < 0 || ys[ky] < 0 || xs[kx] < 0) continue;
            const int32_t rank = index.rank(index.cell(site.batch, zs[kz], ys[ky], xs[kx]));
            if (rank < 0) continue;
            mask[k >> 6] |= uint64_t(1) << (k & 63);
            *inputs++ = rank;
          }
        }
      }
    }
  });
}

/// The map of a convolution whose outputs are `sites`.
void fill_map(const SiteSet& input, const std::vector<Site>& sites, const ConvGeometry& g, const Reach& reach,
              ThreadPool& pool, KernelMap* map) {
  const int64_t rows = int64_t(sites.size());
  map->reset(rows, g.volume());
  const bool runs = input.index.is_bitmap() && !g.transposed && g.dilation[2] == 1 && g.kernel[2] < 64;
  if (!runs) return fill_cells(input, sites.data(), rows, reach, pool, map);
  g.kernel[2] <= 4 && g.volume() <= 64
      ? fill_runs<true>(input.index, sites.data(), rows, g, reach, pool, map)
      : fill_runs<false>(input.index, sites.data(), rows, g, reach, pool, map);
}

}  // namespace

void KernelMap::assign(const int32_t* dense, int64_t rows, int32_t offsets, int64_t input_rows,
                       const std::string& layer, ThreadPool& pool) {
  reset(rows, offsets);
  std::atomic<int32_t> wrong{-1};
  pool.for_each(rows, kChunkRows, [&](int64_t begin, int64_t end, int) {
    int32_t* inputs = chunk_inputs(begin);
    int32_t own_wrong = -1;
    for (int64_t row = begin; row < end; ++row) {
      set_first(row, inputs);
      inputs = compress_row(dense + row * offsets, offsets, input_rows, mask(row), inputs, &own_wrong);
    }
    if (own_wrong != -1) wrong = own_wrong;
  });
  if (wrong != -1) fail_map_entry(wrong, input_rows, layer);
}

void KernelMap::expand(ThreadPool& pool, int32_t* dense) const {
  const MapView map = view();
  pool.for_each(rows(), kChunkRows, [&](int64_t begin, int64_t end, int) {
    std::fill(dense + begin * map.offsets, dense + end * map.offsets, -1);
    for (int64_t row = begin; row < end; ++row) {
      const int32_t* input = map.inputs + map.first[row];
      for (int32_t w = 0; w < map.mask_words; ++w) {
        for (uint64_t bits = map.masks[row * map.mask_words + w]; bits; bits &= bits - 1) {
          dense[row * map.offsets + w * 64 + __builtin_ctzll(bits)] = *input++;
        }
      }
    }
  });
}

void subm_map(const SiteSet& set, const ConvGeometry& g, const Reach& reach, ThreadPool& pool,
              KernelMap* map) {
  fill_map(set, set.sites, g, reach, pool, map);
}

void conv_map(const SiteSet& input, const SiteSet& output, const ConvGeometry& g, const Reach& reach,
              ThreadPool& pool, KernelMap* map) {
  fill_map(input, output.sites, g, reach, pool, map);
}

void inverse_map(const KernelMap& map, int64_t input_sites, KernelMap* inverse) {
  const MapView from = map.view();
  const auto for_each_pair = [&](const auto& visit) {
    for (int64_t row = 0; row < map.rows(); ++row) {
      const int32_t* input = from.inputs + from.first[row];
      for (int32_t w = 0; w < from.mask_words; ++w) {
        for (uint64_t bits = from.masks[row * from.mask_words + w]; bits; bits &= bits - 1) {
          visit(*input++, int32_t(row), w, bits & -bits);
        }
      }
    }
  };
  inverse->reset(input_sites, from.offsets);
  std::fill(inverse->mask(0), inverse->mask(input_sites), 0);
  for_each_pair([&](int32_t input, int32_t, int32_t w, uint64_t bit) { inverse->mask(input)[w] |= bit; });
  int32_t* inputs = nullptr;
  for (int64_t row = 0; row < input_sites; ++row) {
    if (row % KernelMap::kChunkRows == 0) inputs = inverse->chunk_inputs(row);
    inverse->set_first(row, inputs);
    for (int32_t w = 0; w < from.mask_words; ++w) inputs += __builtin_popcountll(inverse->mask(row)[w]);
  }
  const MapView to = inverse->view();
  for_each_pair([&](int32_t input, int32_t row, int32_t w, uint64_t bit) {
    const uint64_t* mask = inverse->mask(input);
    int64_t at = to.first[input] + __builtin_popcountll(mask[w] & (bit - 1));
    for (int32_t before = 0; before < w; ++before) at += __builtin_popcountll(mask[before]);
    inverse->chunk_inputs(0)[at] = row;
  });
}

namespace {

/// Expands a map; rows of the input set may have an order of their own.
void expand_rows(const KernelMap& compressed, const SiteSet& input, ThreadPool& pool, int32_t* map) {
  compressed.expand(pool, map);
  if (input.row_of_rank.empty()) return;
  const int64_t count = compressed.rows() * compressed.view().offsets;
  pool.for_each(count, int64_t(1) << 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      if (map[i] >= 0) map[i] = input.row_of_rank[size_t(map[i])];
    }
  });
}

}  // namespace

void subm_map(const SiteSet& set, const ConvGeometry& g, ThreadPool& pool, int32_t* map) {
  KernelMap compressed;
  subm_map(set, g, make_reach(g), pool, &compressed);
  expand_rows(compressed, set, pool, map);
}

void conv_map(const SiteSet& input, const SiteSet& output, const ConvGeometry& g, const Reach& reach,
              ThreadPool& pool, int32_t* map) {
  KernelMap compressed;
  conv_map(input, output, g, reach, pool, &compressed);
  expand_rows(compressed, input, pool, map);
}

void inverse_map(const int32_t* map, int64_t outputs, int32_t volume, int64_t input_sites,
                 const std::string& layer, int32_t* inverse) {
  const int64_t places = input_sites * volume;
  std::fill(inverse, inverse + places, -1);
  int64_t pairs = 0;
  for (int64_t out = 0; out < outputs; ++out) {
    for (int32_t k = 0; k < volume; ++k) {
      const int32_t in = *static_cast<const volatile int32_t*>(map + out * volume + k);
      if (in == -1) continue;
      if (in < 0 || in >= input_sites) fail_map_entry(in, input_sites, layer);
      inverse[int64_t(in) * volume + k] = int32_t(out);
      ++pairs;
    }
  }
  // afterwards, in order: looking at each place before it is taken costs more than all the rest
  int64_t taken = 0;
  for (int64_t i = 0; i < places; ++i) taken += inverse[i] >= 0;
  if (taken != pairs) fail_no_inverse(pairs - taken, pairs, layer);
}

}  // namespace scn
