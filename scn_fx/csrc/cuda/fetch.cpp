// SPDX-License-Identifier: Apache-2.0
#include "cuda/fetch.h"

#include "core/sizes.h"
#include "cuda/runtime/staging.h"

namespace scn::cuda {

std::vector<Result> fetch_results(int device, const std::vector<DeviceResult>& results, cudaStream_t stream) {
  std::vector<Result> out;
  for (const DeviceResult& from : results) {
    Result to;
    to.dims = from.dims;
    to.half = from.half;
    to.sparse = from.sparse;
    if (from.sparse) {
      int32_t count = 0;
      copy_to_host(device, &count, from.count, sizeof(count), stream);
      to.dims[0] = count;
      to.sites.resize(size_t(count));
      copy_to_host(device, to.sites.data(), from.sites, count * int64_t(sizeof(Site)), stream);
    }
    const Size bytes = Size::of(to.dims) * (to.half ? 2 : 4);
    to.data.reset(new char[bytes.count()]);
    copy_to_host(device, to.data.get(), from.data, bytes.value(), stream);
    out.push_back(std::move(to));
  }
  return out;
}

Voxels fetch_voxels(int device, const SitesView& set, const PointArrays& arrays, int32_t columns,
                    cudaStream_t stream) {
  int32_t count = 0;
  PointTotals totals{};
  copy_to_host(device, &count, set.count, sizeof(count), stream);
  copy_to_host(device, &totals, arrays.totals, sizeof(totals), stream);
  Voxels out;
  out.count = count;
  out.channels = columns;
  out.sites.resize(size_t(count));
  copy_to_host(device, out.sites.data(), set.sites, count * int64_t(sizeof(Site)), stream);
  const Size values = Size(count) * columns;
  out.features.reset(new uint16_t[values.count()]);
  copy_to_host(device, out.features.get(), arrays.means, values.value() * 2, stream);
  out.dropped = totals.dropped;
  out.surplus = totals.surplus;
  return out;
}

}  // namespace scn::cuda
