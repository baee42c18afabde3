// SPDX-License-Identifier: Apache-2.0
#include "maps/kernel_map.h"

#include <algorithm>
#include <atomic>

#include "error.h"

namespace scn {
namespace {

constexpr int64_t kSitesPerChunk = 2048;

/// Calls visit(offset, z, y, x) for every output cell that `site` reaches.
template <typename Visit>
void for_each_output(const Reach& reach, const Site& site, const Visit& visit) {
  const int32_t nz = reach[0].kernel, ny = reach[1].kernel, nx = reach[2].kernel;
  const int32_t* zs = reach[0].output.data() + int64_t(site.z) * nz;
  const int32_t* ys = reach[1].output.data() + int64_t(site.y) * ny;
  const int32_t* xs = reach[2].output.data() + int64_t(site.x) * nx;
  for (int32_t kz = 0; kz < nz; ++kz) {
    if (zs[kz] < 0) continue;
    for (int32_t ky = 0; ky < ny; ++ky) {
      if (ys[ky] < 0) continue;
      for (int32_t kx = 0; kx < nx; ++kx) {
        if (xs[kx] >= 0) visit((kz * ny + ky) * nx + kx, zs[kz], ys[ky], xs[kx]);
      }
    }
  }
}

[[noreturn]] void fail_duplicate(const Site& s, int64_t row, const std::string& layer) {
  fail(ErrorKind::kSite, layer, ": site (batch, z, y, x) = (", s.batch, ", ", s.z, ", ", s.y, ", ", s.x,
       ") in row ", row,
       " is a duplicate. Each voxel may occur once; merge the points of a voxel before calling.");
}

void check_inside(const Site* indices, int64_t count, const SiteIndex& index, const std::string& layer,
                  ThreadPool& pool) {
  std::atomic<int64_t> wrong{0};
  std::atomic<int64_t> first{count};
  pool.for_each(count, int64_t(1) << 15, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const Site& s = indices[i];
      if (uint32_t(s.batch) < uint32_t(index.batch()) && index.contains_cell(s.z, s.y, s.x)) continue;
      ++wrong;
      int64_t seen = first;
      while (i < seen && !first.compare_exchange_weak(seen, i)) {
      }
    }
  });
  if (!wrong) return;
  const Site& s = indices[first];
  fail(ErrorKind::kSite, layer, ": ", wrong.load(), " of ", count,
       " sites lie outside the grid; the first is (batch, z, y, x) = (", s.batch, ", ", s.z, ", ", s.y, ", ",
       s.x, ") in row ", first.load(), ", expected batch < ", index.batch(), " and z, y, x < ",
       to_string(index.shape()), ". Check the voxel range, the order of the columns and the batch size.");
}

}  // namespace

void index_sites(const Site* indices, int64_t count, const Triple& shape, int32_t batch,
                 const std::string& layer, ThreadPool& pool, SiteSet* set, std::vector<int32_t>* order) {
  SiteIndex& index = set->index;
  index.reset(shape, batch);
  check_inside(indices, count, index, layer, pool);
  std::vector<Site> ascending;
  std::vector<Site>& in_order = order ? set->sites : ascending;
  if (index.is_bitmap()) {
    pool.for_each(count, kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        index.insert(index.cell(indices[i]));
      }
    });
  } else {
    for (int64_t i = 0; i < count; ++i) index.append(index.cell(indices[i]));
  }
  const bool distinct = index.finish(pool, &in_order) == count;
  std::vector<int32_t>& row_of_rank = order ? *order : set->row_of_rank;
  row_of_rank.resize(size_t(index.size()));
  if (!distinct) {
    std::fill(row_of_rank.begin(), row_of_rank.end(), -1);
    for (int64_t i = 0; i < count; ++i) {
      int32_t& row = row_of_rank[size_t(index.rank(index.cell(indices[i])))];
      if (row >= 0) fail_duplicate(indices[i], i, layer);
      row = int32_t(i);
    }
  }
  pool.for_each(count, kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      row_of_rank[size_t(index.rank(index.cell(indices[i])))] = int32_t(i);
  });
  if (order) {
    set->row_of_rank.clear();
  } else {
    set->sites.assign(indices, indices + count);
  }
}

Reach make_reach(const ConvGeometry& g) {
  Reach reach;
  for (size_t axis = 0; axis < 3; ++axis) {
    AxisReach& r = reach[axis];
    r.kernel = g.kernel[axis];
    r.output.resize(size_t(g.input_shape[axis]) * size_t(r.kernel));
    for (int32_t in = 0; in < g.input_shape[axis]; ++in) {
      for (int32_t k = 0; k < r.kernel; ++k) {
        int64_t out = -1;
        if (g.transposed) {
          out = int64_t(in) * g.stride[axis] - g.padding[axis] + int64_t(k) * g.dilation[axis];
        } else {
          const int64_t scaled = int64_t(in) + g.padding[axis] - int64_t(k) * g.dilation[axis];
          if (scaled >= 0 && scaled % g.stride[axis] == 0) out = scaled / g.stride[axis];
        }
        r.output[size_t(in) * size_t(r.kernel) + size_t(k)] =
            out >= 0 && out < g.output_shape[axis] ? int32_t(out) : -1;
      }
    }
  }
  return reach;
}

void output_sites(const SiteSet& input, const ConvGeometry& geometry, const Reach& reach,
                  int64_t output_bound, const std::string& layer, ThreadPool& pool, SiteSet* output) {
  SiteIndex& index = output->index;
  index.reset(geometry.output_shape, input.index.batch());
  if (index.is_bitmap()) {
    pool.for_each(input.size(), kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        const Site& site = input.sites[size_t(row)];
        for_each_output(reach, site, [&](int32_t, int32_t z, int32_t y, int32_t x) {
          index.insert(index.cell(site.batch, z, y, x));
        });
      }
    });
  } else {
    for (const Site& site : input.sites) {
      for_each_output(reach, site, [&](int32_t, int32_t z, int32_t y, int32_t x) {
        index.append(index.cell(site.batch, z, y, x));
      });
    }
  }
  const int64_t count = index.finish(pool, &output->sites);
  if (count > output_bound) {
    fail(ErrorKind::kBound, layer, ": ", count, " output sites, but output_bound is ", output_bound,
         ". Capture the model again with output_bound=", count + count / 4, " or more.");
  }
  output->row_of_rank.clear();
}

namespace {

/// Three neighbours along x by their occupancy: rank & keep + add, which is -1 for an empty cell.
struct Triplet {
  int32_t keep[3], add[3];
};
constexpr Triplet kTriplets[8] = {
    {{0, 0, 0}, {-1, -1, -1}}, {{-1, 0, 0}, {0, -1, -1}}, {{0, -1, 0}, {-1, 0, -1}},
    {{-1, -1, 0}, {0, 1, -1}}, {{0, 0, -1}, {-1, -1, 0}}, {{-1, 0, -1}, {0, -1, 1}},
    {{0, -1, -1}, {-1, 0, 1}}, {{-1, -1, -1}, {0, 1, 2}},
};

/// One site's row of a submanifold map, run by run: the cells along x are neighbours in the bitmap.
void subm_row_runs(const SiteSet& set, const ConvGeometry& g, const Site& site, int32_t* out) {
  const SiteIndex& index = set.index;
  const Triple& shape = index.shape();
  const int32_t width = g.kernel[2];
  const int32_t x0 = site.x - g.padding[2];
  const int32_t skip = x0 < 0 ? -x0 : 0;                      // offsets left of the grid
  const int32_t beyond = std::max(0, x0 + width - shape[2]);  // offsets right of it
  const int32_t inside = width - skip - beyond;
  for (int32_t kz = 0; kz < g.kernel[0]; ++kz) {
    const int32_t z = site.z - g.padding[0] + kz * g.dilation[0];
    for (int32_t ky = 0; ky < g.kernel[1]; ++ky, out += width) {
      const int32_t y = site.y - g.padding[1] + ky * g.dilation[1];
      uint64_t bits = 0;
      int32_t rank = 0;
      if (inside > 0 && uint32_t(z) < uint32_t(shape[0]) && uint32_t(y) < uint32_t(shape[1])) {
        bits = index.run(index.cell(site.batch, z, y, x0 + skip), inside, &rank) << skip;
      }
      if (width == 3) {
        const Triplet& t = kTriplets[bits];
        for (int kx = 0; kx < 3; ++kx) out[kx] = (rank & t.keep[kx]) + t.add[kx];
        continue;
      }
      for (int32_t kx = 0; kx < width; ++kx, bits >>= 1) {
        const int32_t occupied = int32_t(bits & 1);
        out[kx] = occupied ? rank : -1;
        rank += occupied;
      }
    }
  }
}

void subm_row_cells(const SiteSet& set, const ConvGeometry& g, const Site& site, int32_t* out) {
  for (int32_t kz = 0; kz < g.kernel[0]; ++kz) {
    const int32_t z = site.z - g.padding[0] + kz * g.dilation[0];
    for (int32_t ky = 0; ky < g.kernel[1]; ++ky) {
      const int32_t y = site.y - g.padding[1] + ky * g.dilation[1];
      for (int32_t kx = 0; kx < g.kernel[2]; ++kx) {
        const int32_t x = site.x - g.padding[2] + kx * g.dilation[2];
        *out++ = set.index.contains_cell(z, y, x) ? set.index.rank(set.index.cell(site.batch, z, y, x)) : -1;
      }
    }
  }
}

}  // namespace

void subm_map(const SiteSet& set, const ConvGeometry& g, ThreadPool& pool, int32_t* map) {
  const int32_t volume = g.volume();
  const bool runs = set.index.is_bitmap() && g.dilation[2] == 1 && g.kernel[2] < 64;
  pool.for_each(set.size(), kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const Site& site = set.sites[size_t(row)];
      int32_t* out = map + row * volume;
      runs ? subm_row_runs(set, g, site, out) : subm_row_cells(set, g, site, out);
      if (set.row_of_rank.empty()) continue;
      for (int32_t k = 0; k < volume; ++k) {
        if (out[k] >= 0) out[k] = set.row_of_rank[size_t(out[k])];
      }
    }
  });
}

void conv_map(const SiteSet& input, const SiteSet& output, const ConvGeometry& g, const Reach& reach,
              ThreadPool& pool, int32_t* map) {
  const int32_t volume = g.volume();
  pool.for_each(output.size() * volume, int64_t(1) << 18,
                [&](int64_t begin, int64_t end, int) { std::fill(map + begin, map + end, -1); });
  // An input and an offset determine their output, so no two chunks write the same entry.
  pool.for_each(input.size(), kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const Site& site = input.sites[size_t(row)];
      for_each_output(reach, site, [&](int32_t offset, int32_t z, int32_t y, int32_t x) {
        map[int64_t(output.row(output.index.cell(site.batch, z, y, x))) * volume + offset] = int32_t(row);
      });
    }
  });
}

void inverse_map(const int32_t* map, int64_t outputs, int32_t volume, int64_t input_sites, int32_t* inverse) {
  std::fill(inverse, inverse + input_sites * volume, -1);
  for (int64_t out = 0; out < outputs; ++out) {
    for (int32_t k = 0; k < volume; ++k) {
      const int32_t in = map[out * volume + k];
      if (in < 0) continue;
      if (in >= input_sites) {
        fail(ErrorKind::kSite, "The kernel map reads input row ", in, ", but its input has ", input_sites,
             " sites.");
      }
      inverse[int64_t(in) * volume + k] = int32_t(out);
    }
  }
}

}  // namespace scn
