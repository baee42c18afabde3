// SPDX-License-Identifier: Apache-2.0
#include "cpu/maps/kernel_map.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "core/error.h"
#include "core/failures.h"

namespace scn {
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
