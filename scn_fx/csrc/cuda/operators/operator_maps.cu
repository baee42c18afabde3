// SPDX-License-Identifier: Apache-2.0
// Kernel maps of a caller's sites, whose rows may have any order, by the engine's bitmaps: cells are marked
// and ranked, and ranks lead to the caller's rows.
#include <algorithm>

#include "core/failures.h"
#include "core/geometry.h"
#include "cuda/operators/operators.h"
#include "cuda/runtime/carver.h"
#include "cuda/runtime/device_guard.h"
#include "cuda/runtime/launch.h"
#include "cuda/runtime/read_back.h"
#include "cuda/sites/geometry.h"
#include "cuda/sites/geometry_view.h"
#include "cuda/sites/lookup.cuh"

namespace scn {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 16;

/// A call's sets in its scratch memory. What must be zero at first lies in front.
struct MapMemory {
  SitesView input, output;
  DeviceFrame* frame;
  int32_t *status, *row_of_rank;
  int64_t zeroed, bytes;
};

/// Most output cells that an input cell reaches along an axis.
Size reach_of(const ConvGeometry& g, size_t axis) {
  const int32_t kernel = g.kernel[axis], stride = g.stride[axis];
  return g.transposed || g.dilation[axis] != 1 ? kernel : (int64_t(kernel) + stride - 1) / stride;
}

MapMemory memory_of(const CudaMapCall& call) {
  const ConvGeometry& g = call.geometry;
  const int32_t batch = int32_t(call.sites.batch);
  MapMemory m{};
  m.input = sites_view(g.input_shape, batch, call.layer);
  m.input.capacity = int32_t(std::max<int64_t>(1, call.sites.count));
  if (!g.subm) {
    m.output = sites_view(g.output_shape, batch, call.layer);
    Size most = Size(call.sites.count) * reach_of(g, 0) * reach_of(g, 1) * reach_of(g, 2);
    for (const Size other : {Size(call.output_bound), Size::of(g.output_shape) * batch, Size(kMostRows)}) {
      if (most > other) most = other;
    }
    m.output.capacity = int32_t(std::max<int64_t>(1, most.value()));
    m.output.number = 1;
  }
  Carver carver(call.scratch);
  const auto set = [&](SitesView& v, auto&& part) {
    if (v.capacity) part(v);
  };
  const auto cleared = [&](SitesView& v) {
    v.words = carver.take<RankWord>(Size(v.lines) * v.words_per_line);
    v.line_counts = carver.take<int32_t>(v.lines);
    v.count = carver.take<int32_t>(1);
  };
  const auto others = [&](SitesView& v) {
    v.group_counts = carver.take<int32_t>(group_count(v));
    v.sites = carver.take<Site>(v.capacity);
  };
  set(m.input, cleared);
  set(m.output, cleared);
  m.zeroed = carver.used().value();
  set(m.input, others);
  set(m.output, others);
  m.frame = carver.take<DeviceFrame>(1);
  m.status = carver.take<int32_t>(kFound + 2);
  m.row_of_rank = carver.take<int32_t>(m.input.capacity);
  m.bytes = carver.used().value();
  return m;
}

__device__ __forceinline__ bool on_grid(const SitesView& s, const Site& at) {
  return uint32_t(at.batch) < uint32_t(s.batch) && uint32_t(at.z) < uint32_t(s.shape[0]) &&
         uint32_t(at.y) < uint32_t(s.shape[1]) && uint32_t(at.x) < uint32_t(s.shape[2]);
}

__global__ void order_kernel(const Site* rows, int32_t count, const __grid_constant__ SitesView set,
                             int32_t* row_of_rank) {
  for (int32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += gridDim.x * kThreads) {
    const Site at = rows[i];
    if (!on_grid(set, at)) continue;  // an error, which the host reports
    const int32_t rank = row_at(set, line_of(set, at.batch, at.z, at.y), at.x);
    if (uint32_t(rank) < uint32_t(count)) row_of_rank[rank] = i;
  }
}

/// One entry of the map a thread. `sites`: of the output rows; `given`: the caller's, which may be anywhere.
__global__ void plain_map_kernel(const __grid_constant__ MapView map, const Site* sites, bool given,
                                 int64_t entries, const int32_t* row_of_rank, int32_t* out) {
  const int32_t volume = map.geometry.volume;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < entries;
       i += int64_t(gridDim.x) * kThreads) {
    const int64_t row = i / volume;
    const Site at = sites[row];
    const bool lost = given && !on_grid(map.input, at);
    const int32_t rank = lost ? -1 : find_neighbour(map, at, int32_t(i - row * volume));
    out[i] = rank < 0 ? -1 : row_of_rank[rank];
  }
}

__global__ void inverse_kernel(const int32_t* map, int64_t entries, int32_t volume, int32_t input_sites,
                               int32_t* inverse, int32_t* checks) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < entries;
       i += int64_t(gridDim.x) * kThreads) {
    const int32_t in = map[i];
    if (in == -1) continue;
    const int32_t out = int32_t(i / volume);
    const bool exists = uint32_t(in) < uint32_t(input_sites);
    int32_t* const place = inverse + int64_t(in) * volume + (i - int64_t(out) * volume);
    if (!checks) {
      if (exists) *place = out;
      continue;
    }
    atomicAdd(&checks[0], 1);
    if (!exists) {
      atomicAdd(&checks[2], 1);
      checks[3] = in;  // any one will do
    } else if (atomicCAS(place, -1, out) != -1) {
      atomicAdd(&checks[1], 1);
    }
  }
}

/// Marks and ranks the caller's sites.
void index_given(const CudaMapCall& call, const MapMemory& m, cudaStream_t stream) {
  check(cudaMemsetAsync(call.scratch, 0, size_t(m.zeroed), stream), "clearing sites");
  const int32_t count = int32_t(call.sites.count);
  begin_frame(m.frame, {nullptr, call.sites.rows, count, 0, int32_t(call.sites.batch)}, m.status, kFound + 2,
              nullptr, 0, stream);
  mark_input(m.frame, m.input, m.status, stream);
  rank_sites({m.input}, m.status, stream);
  order_kernel<<<blocks_for(count, kThreads, kMostBlocks), kThreads, 0, stream>>>(call.sites.rows, count,
                                                                                  m.input, m.row_of_rank);
  check_launch("ordering sites");
}

/// Waits; what is wrong with the caller's sites, else the status.
std::vector<int32_t> checked_status(const CudaMapCall& call, const MapMemory& m, cudaStream_t stream) {
  const std::vector<int32_t> status = read_back(m.status, kFound + 2, stream);
  const auto site = [&](int32_t row) { return read_back(call.sites.rows + row, 1, stream)[0]; };
  if (const int32_t wrong = status[kOutside]) {
    const int32_t row = status[kFirstOutside];
    fail_outside(wrong, call.sites.count, site(row), row, m.input.batch, call.geometry.input_shape,
                 call.layer);
  }
  if (status[kDuplicates]) {
    const int32_t row = status[kFirstDuplicate];
    fail_duplicate(site(row), row, call.layer);
  }
  return status;
}

void fill_map(const CudaMapCall& call, const MapMemory& m, const Site* sites, int64_t rows, int32_t* map,
              cudaStream_t stream) {
  MapView view{};
  view.geometry = geometry_view(call.geometry);
  view.input = m.input;
  view.output = m.output;
  const int64_t entries = (Size(rows) * view.geometry.volume).value();
  plain_map_kernel<<<blocks_for(entries, kThreads, kMostBlocks), kThreads, 0, stream>>>(
      view, sites, call.geometry.subm, entries, m.row_of_rank, map);
  check_launch("making a kernel map");
}

}  // namespace
}  // namespace cuda

using namespace cuda;

Size cuda_map_scratch(const CudaMapCall& call) {
  check_geometry(call.geometry, ErrorKind::kSite, call.layer);
  if (call.sites.count < 0 || call.sites.count > kMostRows) {
    fail(ErrorKind::kSite, call.layer, ": ", call.sites.count, " sites are more than the ", kMostRows,
         " that CUDA operators take. Feed fewer voxels, or use the CPU.");
  }
  if (call.sites.batch < 1 || call.sites.batch > kMostBatch) {
    fail(ErrorKind::kArgument, call.layer, ": batch_size must be 1 to ", kMostBatch, " on a GPU, got ",
         call.sites.batch, ".");
  }
  CudaMapCall measured = call;
  measured.scratch = nullptr;
  return memory_of(measured).bytes;
}

void cuda_subm_map(const CudaMapCall& call, int32_t* map) {
  const DeviceGuard guard(call.place.device);
  const cudaStream_t stream = cudaStream_t(call.place.stream);
  const MapMemory m = memory_of(call);
  index_given(call, m, stream);
  fill_map(call, m, call.sites.rows, call.sites.count, map, stream);
  checked_status(call, m, stream);
}

int64_t cuda_output_sites(const CudaMapCall& call) {
  const DeviceGuard guard(call.place.device);
  const cudaStream_t stream = cudaStream_t(call.place.stream);
  const MapMemory m = memory_of(call);
  index_given(call, m, stream);
  mark_outputs({m.input, m.output}, {{0, 1, geometry_view(call.geometry)}}, stream);
  rank_sites({m.output}, m.status, stream);
  const int64_t found = checked_status(call, m, stream)[kFound + 1];
  if (found > call.output_bound) fail_bound(found, call.output_bound, "output sites", call.layer);
  if (found > m.output.capacity) {
    fail(ErrorKind::kSite, call.layer, ": ", found, " output sites are more than the ", kMostRows,
         " that CUDA operators take. Feed fewer voxels, or use the CPU.");
  }
  return found;
}

void cuda_conv_map(const CudaMapCall& call, int64_t outputs, Site* sites, int32_t* map) {
  const DeviceGuard guard(call.place.device);
  const cudaStream_t stream = cudaStream_t(call.place.stream);
  const MapMemory m = memory_of(call);
  if (outputs < 1 || outputs > m.output.capacity) return;
  check(cudaMemcpyAsync(sites, m.output.sites, size_t(outputs) * sizeof(Site), cudaMemcpyDeviceToDevice,
                        stream),
        "copying sites");
  fill_map(call, m, m.output.sites, outputs, map, stream);
}

void cuda_inverse_map(const CudaPlace& place, const int32_t* map, int64_t outputs, int64_t offsets,
                      int64_t input_sites, const std::string& layer, int32_t* checks, int32_t* inverse) {
  const DeviceGuard guard(place.device);
  const cudaStream_t stream = cudaStream_t(place.stream);
  check(cudaMemsetAsync(inverse, 0xff, (Size(input_sites) * offsets * sizeof(int32_t)).count(), stream),
        "clearing a kernel map");
  if (checks) check(cudaMemsetAsync(checks, 0, 4 * sizeof(int32_t), stream), "clearing counts");
  const int64_t entries = (Size(outputs) * offsets).value();
  if (!entries) return;
  inverse_kernel<<<blocks_for(entries, kThreads, kMostBlocks), kThreads, 0, stream>>>(
      map, entries, int32_t(offsets), int32_t(input_sites), inverse, checks);
  check_launch("inverting a kernel map");
  if (!checks) return;
  const std::vector<int32_t> found = read_back(checks, 4, stream);
  if (found[2]) fail_map_entry(found[3], input_sites, layer);
  if (found[1]) fail_no_inverse(found[1], found[0], layer);
}

}  // namespace scn
