// SPDX-License-Identifier: Apache-2.0
#include "maps/kernel_map.h"

#include <algorithm>

#include "error.h"

namespace scn {
namespace {

constexpr int64_t kSitesPerChunk = 2048;

/// Output coordinate that input coordinate `in` reaches along one axis with offset `k`, or -1.
int32_t output_coordinate(const ConvGeometry& g, int axis, int32_t in, int32_t k) {
  int64_t out;
  if (g.transposed) {
    out = int64_t(in) * g.stride[axis] - g.padding[axis] + int64_t(k) * g.dilation[axis];
  } else {
    const int64_t scaled = int64_t(in) + g.padding[axis] - int64_t(k) * g.dilation[axis];
    if (scaled < 0 || scaled % g.stride[axis] != 0) return -1;
    out = scaled / g.stride[axis];
  }
  return out >= 0 && out < g.output_shape[axis] ? int32_t(out) : -1;
}

/// Calls visit(offset, z, y, x) for every output cell that `site` reaches.
template <typename Visit>
void for_each_output(const ConvGeometry& g, const Site& site, const Visit& visit) {
  for (int32_t kz = 0; kz < g.kernel[0]; ++kz) {
    const int32_t z = output_coordinate(g, 0, site.z, kz);
    if (z < 0) continue;
    for (int32_t ky = 0; ky < g.kernel[1]; ++ky) {
      const int32_t y = output_coordinate(g, 1, site.y, ky);
      if (y < 0) continue;
      for (int32_t kx = 0; kx < g.kernel[2]; ++kx) {
        const int32_t x = output_coordinate(g, 2, site.x, kx);
        if (x >= 0) visit((kz * g.kernel[1] + ky) * g.kernel[2] + kx, z, y, x);
      }
    }
  }
}

[[noreturn]] void fail_duplicate(const Site& s, int64_t row, const std::string& layer) {
  fail(ErrorKind::kSite, layer, ": site (batch, z, y, x) = (", s.batch, ", ", s.z, ", ", s.y, ", ", s.x,
       ") in row ", row,
       " is a duplicate. Each voxel may occur once; merge the points of a voxel before calling.");
}

}  // namespace

SiteSet index_sites(const Site* indices, int64_t count, const Triple& shape, int32_t batch,
                    const std::string& layer, std::vector<int32_t>* order) {
  SiteSet set{SiteIndex(shape, batch), {}, {}};
  SiteIndex& index = set.index;
  int64_t wrong = 0, first = -1;
  for (int64_t i = 0; i < count; ++i) {
    const Site& s = indices[i];
    if (uint32_t(s.batch) >= uint32_t(batch) || !index.contains_cell(s.z, s.y, s.x)) {
      if (first < 0) first = i;
      ++wrong;
    }
  }
  if (wrong) {
    const Site& s = indices[first];
    fail(ErrorKind::kSite, layer, ": ", wrong, " of ", count,
         " sites lie outside the grid; the first is (batch, z, y, x) = (", s.batch, ", ", s.z, ", ", s.y,
         ", ", s.x, ") in row ", first, ", expected batch < ", batch, " and z, y, x < ", to_string(shape),
         ". Check the voxel range, the order of the columns and the batch size.");
  }
  for (int64_t i = 0; i < count; ++i) {
    if (!index.insert(index.cell(indices[i]))) fail_duplicate(indices[i], i, layer);
  }
  const bool distinct = index.finish() == count;
  std::vector<int32_t> row_of_rank(size_t(index.size()), -1);
  for (int64_t i = 0; i < count; ++i) {
    int32_t& row = row_of_rank[size_t(index.rank(index.cell(indices[i])))];
    if (!distinct && row >= 0) fail_duplicate(indices[i], i, layer);
    row = int32_t(i);
  }
  if (order) {
    set.sites = index.sites();
    *order = std::move(row_of_rank);
  } else {
    set.sites.assign(indices, indices + count);
    set.row_of_rank = std::move(row_of_rank);
  }
  return set;
}

SiteSet output_sites(const SiteSet& input, const ConvGeometry& geometry, int64_t output_bound,
                     const std::string& layer) {
  SiteSet set{SiteIndex(geometry.output_shape, input.index.batch()), {}, {}};
  for (const Site& site : input.sites) {
    for_each_output(geometry, site, [&](int32_t, int32_t z, int32_t y, int32_t x) {
      set.index.insert(set.index.cell({site.batch, z, y, x}));
    });
  }
  const int64_t count = set.index.finish();
  if (count > output_bound) {
    fail(ErrorKind::kBound, layer, ": ", count, " output sites, but output_bound is ", output_bound,
         ". Capture the model again with output_bound=", count + count / 4, " or more.");
  }
  set.sites = set.index.sites();
  return set;
}

void subm_map(const SiteSet& set, const ConvGeometry& g, ThreadPool& pool, int32_t* map) {
  const int32_t volume = g.volume();
  pool.for_each(set.size(), kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const Site& site = set.sites[size_t(row)];
      int32_t* out = map + row * volume;
      for (int32_t kz = 0; kz < g.kernel[0]; ++kz) {
        const int32_t z = site.z - g.padding[0] + kz * g.dilation[0];
        for (int32_t ky = 0; ky < g.kernel[1]; ++ky) {
          const int32_t y = site.y - g.padding[1] + ky * g.dilation[1];
          for (int32_t kx = 0; kx < g.kernel[2]; ++kx) {
            const int32_t x = site.x - g.padding[2] + kx * g.dilation[2];
            *out++ = set.index.contains_cell(z, y, x) ? set.row(set.index.cell({site.batch, z, y, x})) : -1;
          }
        }
      }
    }
  });
}

void conv_map(const SiteSet& input, const SiteSet& output, const ConvGeometry& g, ThreadPool& pool,
              int32_t* map) {
  const int32_t volume = g.volume();
  std::fill(map, map + output.size() * volume, -1);
  // An input and an offset determine their output, so no two chunks write the same entry.
  pool.for_each(input.size(), kSitesPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const Site& site = input.sites[size_t(row)];
      for_each_output(g, site, [&](int32_t offset, int32_t z, int32_t y, int32_t x) {
        map[int64_t(output.row(output.index.cell({site.batch, z, y, x}))) * volume + offset] = int32_t(row);
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
