// SPDX-License-Identifier: Apache-2.0
// Sites and kernel maps against loops over all cells: index_sites, output_sites, the three maps, and their
// two forms.
#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "bytes.h"
#include "check.h"
#include "core/error.h"
#include "core/geometry.h"
#include "cpu/maps/kernel_map.h"
#include "tally.h"

namespace {

using fuzz::Bytes;
using Cell = std::tuple<int32_t, int32_t, int32_t, int32_t>;

/// Whether a bitmap of these cells would take long to clear; more cells than these need none.
bool slow_bitmap(const scn::Triple& shape, int32_t batch) {
  const double cells = double(batch) * shape[0] * shape[1] * shape[2];
  return cells > double(1 << 22) && cells <= double(1 << 30);
}

Cell cell_of(const scn::Site& s) { return {s.batch, s.z, s.y, s.x}; }

/// What one axis connects: the output coordinate of an input coordinate and an offset, or -1.
int64_t output_of(const scn::ConvGeometry& g, size_t axis, int64_t in, int64_t k) {
  const int64_t s = g.stride[axis], p = g.padding[axis], d = g.dilation[axis];
  int64_t out = in * s - p + k * d;
  if (!g.transposed) out = (in + p - k * d) % s ? -1 : (in + p - k * d) / s;
  return out >= 0 && out < g.output_shape[axis] ? out : -1;
}

/// A geometry on this grid; one of extreme numbers may be none.
scn::ConvGeometry draw_geometry(Bytes& bytes, const scn::Triple& grid) {
  scn::ConvGeometry g;
  const uint32_t kind = bytes.below(3);
  g.subm = kind == 0;
  g.transposed = kind == 1;
  g.input_shape = g.output_shape = grid;
  const auto number = [&](int32_t low, int32_t high, int32_t least) {
    return bytes.chance(5) ? bytes.edge32(least) : bytes.between(low, high);
  };
  for (size_t i = 0; i < 3; ++i) {
    g.kernel[i] = bytes.chance(1) ? bytes.edge32(0) : bytes.between(1, bytes.chance(5) ? 70 : 3);
    g.dilation[i] = number(1, 2, 0);
    if (!g.subm) g.stride[i] = number(1, 3, 0);
    const int64_t middle = int64_t(g.kernel[i] / 2) * g.dilation[i];
    g.padding[i] = g.subm ? int32_t(std::min<int64_t>(middle, INT32_MAX)) : number(0, 2, -1);
    if (g.subm || g.stride[i] < 1 || g.dilation[i] < 1) continue;
    const int64_t size = scn::output_extent(g, i, 0);
    g.output_shape[i] = int32_t(std::min<int64_t>(std::max<int64_t>(size, 0), INT32_MAX));
  }
  return g;
}

std::vector<scn::Site> draw_sites(Bytes& bytes, const scn::Triple& grid, int32_t batch) {
  std::vector<scn::Site> sites;
  std::set<Cell> taken;
  for (int count = bytes.between(0, 40); count > 0; --count) {
    scn::Site s{bytes.between(0, batch - 1), 0, 0, 0};
    // near the beginning, where sites have neighbours, or at the end of a long axis
    for (int32_t* const axis : {&s.z, &s.y, &s.x}) {
      const int32_t size = std::max(1, grid[axis == &s.z ? 0 : axis == &s.y ? 1 : 2]);
      *axis = int32_t(bytes.below(uint32_t(std::min(size, 140))));
      if (size > 140 && bytes.chance(30)) *axis = size - 1 - *axis;
    }
    if (bytes.chance(1)) s.x = bytes.edge32(INT32_MIN);
    if (bytes.chance(1)) s.batch = bytes.edge32(INT32_MIN);
    if (taken.insert(cell_of(s)).second || bytes.chance(2)) sites.push_back(s);
  }
  return sites;
}

bool valid(const std::vector<scn::Site>& sites, const scn::Triple& grid, int32_t batch) {
  std::set<Cell> taken;
  for (const scn::Site& s : sites) {
    const bool inside = s.batch >= 0 && s.batch < batch && s.z >= 0 && s.z < grid[0] && s.y >= 0 &&
                        s.y < grid[1] && s.x >= 0 && s.x < grid[2];
    if (!inside || !taken.insert(cell_of(s)).second) return false;
  }
  return true;
}

/// [outputs, offsets] with -1, by looking each cell up.
std::vector<int32_t> expected_map(const scn::ConvGeometry& g, const std::vector<scn::Site>& inputs,
                                  const std::vector<scn::Site>& outputs) {
  std::map<Cell, int32_t> row_of;
  for (size_t i = 0; i < outputs.size(); ++i) row_of[cell_of(outputs[i])] = int32_t(i);
  std::vector<int32_t> map(outputs.size() * size_t(g.volume()), -1);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const scn::Site& s = inputs[i];
    int32_t k = 0;
    for (int32_t kz = 0; kz < g.kernel[0]; ++kz)
      for (int32_t ky = 0; ky < g.kernel[1]; ++ky)
        for (int32_t kx = 0; kx < g.kernel[2]; ++kx, ++k) {
          const int64_t z = output_of(g, 0, s.z, kz), y = output_of(g, 1, s.y, ky),
                        x = output_of(g, 2, s.x, kx);
          const auto found = row_of.find({s.batch, int32_t(z), int32_t(y), int32_t(x)});
          if (z >= 0 && y >= 0 && x >= 0 && found != row_of.end())
            map[size_t(found->second) * size_t(g.volume()) + size_t(k)] = int32_t(i);
        }
  }
  return map;
}

std::set<Cell> expected_outputs(const scn::ConvGeometry& g, const std::vector<scn::Site>& inputs) {
  std::set<Cell> cells;
  for (const scn::Site& s : inputs)
    for (int32_t kz = 0; kz < g.kernel[0]; ++kz)
      for (int32_t ky = 0; ky < g.kernel[1]; ++ky)
        for (int32_t kx = 0; kx < g.kernel[2]; ++kx) {
          const int64_t z = output_of(g, 0, s.z, kz), y = output_of(g, 1, s.y, ky),
                        x = output_of(g, 2, s.x, kx);
          if (z >= 0 && y >= 0 && x >= 0) cells.insert({s.batch, int32_t(z), int32_t(y), int32_t(x)});
        }
  return cells;
}

void check_inverse(Bytes& bytes, const std::vector<int32_t>& map, int64_t outputs, int32_t volume,
                   int64_t inputs) {
  std::vector<int32_t> inverse(size_t(inputs * volume)), expected(inverse.size(), -1);
  for (int64_t i = 0; i < outputs * volume; ++i) {
    if (map[size_t(i)] >= 0)
      expected[size_t(map[size_t(i)] * int64_t(volume) + i % volume)] = int32_t(i / volume);
  }
  scn::inverse_map(map.data(), outputs, volume, inputs, "map", inverse.data());
  FUZZ_CHECK(inverse == expected, "the inverse map");
  if (map.empty()) return;
  std::vector<int32_t> wrong = map;
  bytes.pick(wrong) = bytes.edge32(INT32_MIN);
  // each pair of an input row and an offset belongs to one output, and all rows are there
  bool invertible = true;
  std::set<std::pair<int32_t, int64_t>> pairs;
  for (size_t i = 0; i < wrong.size(); ++i) {
    invertible = invertible && wrong[i] >= -1 && wrong[i] < inputs;
    if (wrong[i] >= 0) invertible = invertible && pairs.insert({wrong[i], int64_t(i) % volume}).second;
  }
  try {
    scn::inverse_map(wrong.data(), outputs, volume, inputs, "map", inverse.data());
    FUZZ_CHECK(invertible, "a map that has no inverse was taken");
  } catch (const scn::Error&) {
    FUZZ_CHECK(!invertible, "a map that has an inverse was refused");
    ++fuzz::tally().refused;
  }
}

void run(Bytes& bytes) {
  scn::Triple grid{bytes.between(1, 6), bytes.between(1, 9), bytes.between(1, 9)};
  const uint32_t kind = bytes.below(8);
  if (kind == 0) grid[2] = bytes.between(60, 140);
  if (kind == 1) grid = {1100, 1000, 1000};
  if (kind == 2) bytes.pick(grid) = bytes.edge32(-1);
  const auto longest = std::max_element(grid.begin(), grid.end());
  if (*longest > scn::kMostExtent) *longest = scn::kMostExtent;
  const int32_t batch = bytes.chance(3) ? bytes.edge32(INT32_MIN) : bytes.between(1, 3);
  const std::vector<scn::Site> sites = draw_sites(bytes, grid, std::max(1, std::min(batch, 3)));
  if (slow_bitmap(grid, batch)) return;
  static scn::ThreadPool one(1), two(2);
  scn::ThreadPool& pool = bytes.chance(10) ? two : one;
  static scn::SiteSet input, output;  // used again, as an engine does
  std::vector<int32_t> order;
  const bool ordered = bytes.chance(50);
  try {
    scn::index_sites(sites.data(), int64_t(sites.size()), grid, batch, "sites", pool, &input,
                     ordered ? &order : nullptr);
  } catch (const scn::Error&) {
    const bool numbered = batch > 0 && *std::min_element(grid.begin(), grid.end()) > 0 &&
                          double(batch) * grid[0] * grid[1] * grid[2] < 9e18;
    FUZZ_CHECK(!numbered || !valid(sites, grid, batch), "%zu good sites were refused", sites.size());
    ++fuzz::tally().refused;
    return;
  }
  FUZZ_CHECK(valid(sites, grid, batch), "bad sites were taken");
  FUZZ_CHECK(input.sites.size() == sites.size(), "%zu sites of %zu", input.sites.size(), sites.size());
  for (size_t row = 0; row < sites.size(); ++row) {
    const scn::Site& s = sites[ordered ? size_t(order[row]) : row];
    FUZZ_CHECK(cell_of(input.sites[row]) == cell_of(s), "row %zu", row);
    FUZZ_CHECK(input.row(input.index.cell(s)) == int32_t(row), "the look-up of row %zu", row);
    FUZZ_CHECK(!ordered || !row || cell_of(input.sites[row - 1]) < cell_of(s), "the order of row %zu", row);
  }
  const scn::ConvGeometry g = draw_geometry(bytes, grid);
  try {
    scn::check_geometry(g, scn::ErrorKind::kArgument, "geometry");
  } catch (const scn::Error&) {
    ++fuzz::tally().refused;
    return;
  }
  if (slow_bitmap(g.output_shape, batch) || g.volume() > 4096) return;
  const scn::Reach reach = scn::make_reach(g);
  std::vector<scn::Site> outputs = input.sites;
  if (!g.subm) {
    const std::set<Cell> cells = expected_outputs(g, input.sites);
    const int64_t bound = bytes.chance(10) ? bytes.edge() : 1 << 20;
    try {
      scn::output_sites(input, g, reach, bound, "outputs", pool, &output);
    } catch (const scn::Error&) {
      FUZZ_CHECK(int64_t(cells.size()) > bound ||
                     double(batch) * g.output_shape[0] * g.output_shape[1] * g.output_shape[2] > 9e18,
                 "%zu outputs were refused", cells.size());
      ++fuzz::tally().refused;
      return;
    }
    FUZZ_CHECK(int64_t(cells.size()) <= bound, "more outputs than the bound");
    outputs = output.sites;
    FUZZ_CHECK(outputs.size() == cells.size() &&
                   std::equal(cells.begin(), cells.end(), outputs.begin(),
                              [](const Cell& c, const scn::Site& s) { return c == cell_of(s); }),
               "%zu outputs, expected %zu", outputs.size(), cells.size());
  }
  const int32_t volume = g.volume();
  if (outputs.size() * size_t(volume) > size_t(1) << 22) return;  // the loops' own maps take memory too
  std::vector<int32_t> map(outputs.size() * size_t(volume));
  if (g.subm) {
    scn::subm_map(input, g, pool, map.data());
  } else {
    scn::conv_map(input, output, g, reach, pool, map.data());
  }
  FUZZ_CHECK(map == expected_map(g, input.sites, outputs), "the map");
  static scn::KernelMap compressed;
  compressed.assign(map.data(), int64_t(outputs.size()), volume, int64_t(sites.size()), "map", pool);
  std::vector<int32_t> again(map.size());
  compressed.expand(pool, again.data());
  FUZZ_CHECK(again == map, "a map, compressed and expanded");
  ++fuzz::tally().frames;
  check_inverse(bytes, map, int64_t(outputs.size()), volume, int64_t(sites.size()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ++fuzz::tally().inputs;
  Bytes bytes(data, size);
  run(bytes);
  return 0;
}
