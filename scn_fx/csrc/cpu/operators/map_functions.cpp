// SPDX-License-Identifier: Apache-2.0
#include "cpu/operators/map_functions.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/geometry.h"
#include "core/sizes.h"
#include "cpu/convolution/convolution.h"
#include "cpu/maps/kernel_map.h"
#include "cpu/operators/functions.h"

namespace scn {
namespace {

constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max();

int32_t checked_batch(int64_t batch, const std::string& layer) {
  if (batch < 1 || batch > kMostRows) {
    fail(ErrorKind::kArgument, layer, ": batch_size must be 1 to ", kMostRows, ", got ", batch, ".");
  }
  return int32_t(batch);
}

/// Indexes a copy of the sites; what was checked is in `set`.
void index_given(const GivenSites& given, const Triple& shape, const std::string& layer, ThreadPool& pool,
                 MemoryBudget& budget, SiteSet* set) {
  const int32_t batch = checked_batch(given.batch, layer);
  if ((Size::of(shape) * batch).too_large()) {
    fail(ErrorKind::kSite, layer, ": a grid of ", to_string(shape), " with batch ", batch,
         " has more cells than 63 bits can number. Use larger voxels or a smaller range.");
  }
  budget.take(SiteIndex::bitmap_bytes(shape, batch), layer, "the index of its grid");
  // copies in two orders, the rows of each, and cells as they are sorted
  budget.take(Size(given.count) * (4 * sizeof(Site) + 3 * sizeof(int64_t)), layer, "its sites");
  index_sites(given.rows, given.count, shape, batch, layer, pool, set);
}

IntRows int_rows(int64_t rows, int64_t columns, const std::string& layer, const char* what,
                 MemoryBudget& budget) {
  const Size count = Size(rows) * columns;
  budget.take(count * sizeof(int32_t), layer, what);
  return {std::unique_ptr<int32_t[]>(new int32_t[count.count()]), rows, columns};
}

/// Room for a map, besides its compressed form.
IntRows map_rows(int64_t rows, const ConvGeometry& g, const std::string& layer, MemoryBudget& budget) {
  budget.take(KernelMap::bytes_for(rows, g.volume()), layer, "its kernel map");
  return int_rows(rows, g.volume(), layer, "its kernel map", budget);
}

}  // namespace

IntRows make_subm_map(const GivenSites& given, const Triple& shape, const Triple& kernel,
                      const Triple& dilation, const std::string& layer, ThreadPool& pool,
                      MemoryBudget& budget) {
  ConvGeometry g;
  g.subm = true;
  g.kernel = kernel;
  g.dilation = dilation;
  g.input_shape = g.output_shape = shape;
  g.padding = subm_padding(kernel, dilation);
  check_geometry(g, ErrorKind::kSite, layer);
  SiteSet set;
  index_given(given, shape, layer, pool, budget, &set);
  budget.take(reach_bytes(g), layer, "what its offsets connect");
  IntRows map = map_rows(set.size(), g, layer, budget);
  subm_map(set, g, pool, map.data.get());
  return map;
}

StridedMap make_conv_map(const GivenSites& given, const ConvGeometry& g, int64_t output_bound,
                         const std::string& layer, ThreadPool& pool, MemoryBudget& budget) {
  check_geometry(g, ErrorKind::kSite, layer);
  if (output_bound < 0)
    fail(ErrorKind::kArgument, layer, ": output_bound must not be negative, got ", output_bound, ".");
  SiteSet input, output;
  index_given(given, g.input_shape, layer, pool, budget, &input);
  budget.take(reach_bytes(g), layer, "what its offsets connect");
  const Reach reach = make_reach(g);
  budget.take(SiteIndex::bitmap_bytes(g.output_shape, input.index.batch()), layer, "the index of its grid");
  // a list that grows is copied
  budget.take(cells_to_sort(input, g, reach) * (3 * sizeof(int64_t)), layer, "the cells that it reaches");
  const int64_t bound = std::min(output_bound, kMostRows);
  Size most = Size::of(g.output_shape) * input.index.batch();
  for (const Size other : {Size(input.size()) * g.volume(), Size(bound)}) {
    if (most > other) most = other;
  }
  budget.take(most * sizeof(Site), layer, "its sites");
  output_sites(input, g, reach, bound, layer, pool, &output);
  StridedMap out;
  out.sites = int_rows(output.size(), 4, layer, "its sites", budget);
  std::copy(output.sites.begin(), output.sites.end(), reinterpret_cast<Site*>(out.sites.data.get()));
  out.map = map_rows(output.size(), g, layer, budget);
  conv_map(input, output, g, reach, pool, out.map.data.get());
  return out;
}

IntRows make_inverse_map(const int32_t* map, int64_t outputs, int64_t offsets, int64_t input_sites,
                         const std::string& layer, MemoryBudget& budget) {
  if (input_sites < 0 || input_sites > kMostRows) {
    fail(ErrorKind::kSite, layer, ": the number of input sites must be 0 to ", kMostRows, ", got ",
         input_sites, ".");
  }
  if (outputs > kMostRows || offsets < 1 || offsets > kMostOffsets) {
    fail(ErrorKind::kSite, layer, ": a kernel map has up to ", kMostRows, " rows and 1 to ", kMostOffsets,
         " offsets, got [", outputs, ", ", offsets, "].");
  }
  IntRows inverse = int_rows(input_sites, offsets, layer, "its kernel map", budget);
  inverse_map(map, outputs, int32_t(offsets), input_sites, layer, inverse.data.get());
  return inverse;
}

std::unique_ptr<char[]> make_dense(const void* features, int64_t element, int64_t channels,
                                   const GivenSites& given, const Triple& shape, const std::string& layer,
                                   ThreadPool& pool, MemoryBudget& budget) {
  check_rows(given.count, channels, layer);
  check_shape(shape, "spatial_shape", ErrorKind::kSite, layer);
  const int32_t batch = checked_batch(given.batch, layer);
  const Size bytes = Size(batch) * channels * Size::of(shape) * element;
  budget.take(bytes, layer, "its dense map");
  SiteSet set;
  index_given(given, shape, layer, pool, budget, &set);
  std::unique_ptr<char[]> dense(new char[bytes.count()]);
  scatter_dense(features, element, channels, set.sites.data(), set.size(), int32_t(channels), batch, shape,
                pool, dense.get());
  return dense;
}

}  // namespace scn
