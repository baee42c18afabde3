// SPDX-License-Identifier: Apache-2.0
// Kernel maps, tile by tile. A warp has a tile and a part of its offsets.
#include "cuda/maps/kernel_maps.h"
#include "cuda/maps/map_records.cuh"
#include "cuda/runtime/device_code.cuh"
#include "cuda/runtime/launch.h"
#include "cuda/sites/lookup.cuh"

namespace scn::cuda {
namespace {

constexpr int kMaxMaps = 13, kMapThreads = 128, kMapWarps = kMapThreads / 32;
constexpr int32_t kMostParts = 64;  // of a tile: numbers of parts stay below 2^31

/// The usual kernels, whatever their planes along z: [y, x] offsets of a plane, without dilation along x. A
/// part is a plane; the rows that offsets along x find are consecutive, so they are a first row and a mask.
/// Other kernels: a part has every so-and-so-manieth offset, looked up one by one.
enum class Planes : int32_t { kOther, k1x1, k2x2, k3x3 };

struct MapTable {
  int32_t count;
  bool beside;  // the kernel before in the stream: waited for in the end
  Planes planes[kMaxMaps];
  int32_t parts[kMaxMaps];
  MapView map[kMaxMaps];
};

static_assert(sizeof(MapTable) <= 4096, "parameters of a kernel");

Planes planes_of(const GeometryView& g) {
  if (g.divides || (g.dilation[2] != 1 && g.kernel[2] != 1) || g.kernel[0] > kMostParts)
    return Planes::kOther;
  if (g.kernel[1] != g.kernel[2] || g.kernel[2] > 3) return Planes::kOther;
  return g.kernel[2] == 1 ? Planes::k1x1 : g.kernel[2] == 2 ? Planes::k2x2 : Planes::k3x3;
}

/// What a warp works on.
struct Part : Record {
  int32_t number;
  int32_t input_rows;
  int4 site[kLaneRows];
  bool present[kLaneRows];
};

/// The plane of offsets that has the part's number.
template <int KY, int KX>
__device__ __forceinline__ void map_plane(const Part& p) {
  static_assert(KX <= 3, "the slack in far_capacity is for runs along x of up to four");
  const GeometryView& g = p.map.geometry;
  const SitesView& in = p.map.input;
  const uint2* const words = reinterpret_cast<const uint2*>(in.words);
  uint2 left[kLaneRows][KY], right[kLaneRows][KY];
  int32_t low[kLaneRows], skipped[kLaneRows];
  uint32_t wanted[kLaneRows];
#pragma unroll
  for (int i = 0; i < kLaneRows; ++i) {  // all loads together
    const int4 at = p.site[i];
    const int32_t z = at.y * g.stride[0] - g.padding[0] + p.number * g.dilation[0];
    const int32_t y0 = at.z * g.stride[1] - g.padding[1], x0 = at.w * g.stride[2] - g.padding[2];
    const int32_t high = min(x0 + KX, in.shape[2]) - 1;
    low[i] = max(x0, 0);
    const bool inside = p.present[i] && low[i] <= high && uint32_t(z) < uint32_t(in.shape[0]);
    const bool two = low[i] >> 5 != high >> 5;
    skipped[i] = (low[i] - x0) & 31;
    wanted[i] = (2u << ((high - low[i]) & 31)) - 1;
    const int32_t line = (at.x * in.shape[0] + z) * in.shape[1] + y0;
#pragma unroll
    for (int r = 0; r < KY; ++r) {
      left[i][r] = right[i][r] = make_uint2(0, 0);
      if (!inside || uint32_t(y0 + r * g.dilation[1]) >= uint32_t(in.shape[1])) continue;
      const uint2* const from = words + ((line + r * g.dilation[1]) * in.words_per_line + (low[i] >> 5));
      left[i][r] = __ldcg(from);
      if (KX > 1 && two) right[i][r] = __ldcg(from + 1);
    }
  }
  int32_t own_base = 0;  // of the offset that has the lane's number in the plane
#pragma unroll
  for (int r = 0; r < KY; ++r) {
    int32_t first[kLaneRows], lowest = kNoRow, highest = -1;
    uint32_t mask[kLaneRows];
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const uint2 l = left[i][r], n = right[i][r];
      const uint32_t before = l.x & ((1u << (low[i] & 31)) - 1);
      mask[i] = (__funnelshift_r(l.x, n.x, low[i] & 31) & wanted[i]) << skipped[i];
      first[i] = int32_t(l.x != before ? l.y + __popc(before) : n.y);
      if (p.input_rows == in.capacity) {  // perhaps not all sites are listed
        while (mask[i] && first[i] + __popc(mask[i]) > p.input_rows)
          mask[i] ^= 1u << (31 - __clz(int32_t(mask[i])));
      }
      if (!mask[i]) continue;
      lowest = min(lowest, first[i]);
      highest = max(highest, first[i] + __popc(mask[i]) - 1);
    }
    lowest = warp_min(lowest);
    const int32_t base = lowest == kNoRow ? 0 : lowest;
    const bool far = __any_sync(0xffffffffu, highest - base > kFarthest);
    if (!far) {  // nearly always, and in few instructions
      uint32_t distance[kLaneRows];
#pragma unroll
      for (int i = 0; i < kLaneRows; ++i) distance[i] = uint32_t(first[i] - base);
#pragma unroll
      for (int kx = 0; kx < KX; ++kx) {
        uint32_t stored[kLaneRows];
#pragma unroll
        for (int i = 0; i < kLaneRows; ++i) {
          const bool has = mask[i] & 1u << kx;
          stored[i] = has ? distance[i] : uint32_t(kNoNeighbour);
          distance[i] += has ? 1 : 0;
        }
        store_distances(p, p.number * (KY * KX) + r * KX + kx, stored[0], stored[1]);
      }
      if (p.lane >= r * KX && p.lane < (r + 1) * KX) own_base = base;
      continue;
    }
#pragma unroll 1
    for (int kx = 0; kx < KX; ++kx) {
      int32_t row[kLaneRows];
#pragma unroll
      for (int i = 0; i < kLaneRows; ++i)
        row[i] = mask[i] >> kx & 1 ? first[i] + __popc(mask[i] & ((1u << kx) - 1)) : -1;
      const int32_t in_plane = r * KX + kx;
      const int32_t stored = store_offset(p, p.number * (KY * KX) + in_plane, row, base, far);
      if (p.lane == in_plane) own_base = stored;
    }
  }
  if (p.lane < KY * KX) bases_of(p)[p.number * (KY * KX) + p.lane] = own_base;
}

__device__ __forceinline__ void map_offsets(const Part& p, int32_t parts) {
  for (int32_t k = p.number; k < p.map.geometry.volume; k += parts) {
    int32_t row[kLaneRows];
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const int4 at = p.site[i];
      row[i] = p.present[i] ? find_neighbour(p.map, Site{at.x, at.y, at.z, at.w}, k) : -1;
    }
    store_any(p, k, row);
  }
}

__global__ __launch_bounds__(kMapThreads) void map_kernel(const __grid_constant__ MapTable maps) {
  const int32_t lane = threadIdx.x & 31;
  if (!maps.beside) wait_for_dependency();
  launch_dependents();
  const int32_t block = int32_t(blockIdx.x), blocks = int32_t(gridDim.x);
  const bool single = maps.count == 1;
  const int32_t count = lane < maps.count ? __ldcg(maps.map[lane].output.count) : 0;
  const int32_t own_parts = lane < maps.count ? maps.parts[lane] : 0;
  const int32_t own = (count + kTileRows - 1) / kTileRows * own_parts;
  int32_t end = 0, total = 0;  // numbers of parts: up to the lane's map, of all
  if (!single) {
    end = warp_inclusive(own);
    total = __shfl_sync(0xffffffffu, end, 31);
  }
  for (int32_t number = block * kMapWarps + int32_t(threadIdx.x >> 5); single || number < total;
       number += blocks * kMapWarps) {
    int32_t which = 0, in_map = number;
    if (!single) {
      which = __popc(__ballot_sync(0xffffffffu, end <= number));
      in_map -= __shfl_sync(0xffffffffu, end - own, which);
    }
    const MapView& m = maps.map[which];
    const int32_t parts = maps.parts[which], tile = in_map / parts;
    Part p{{m, m.tiles + int64_t(tile) * m.tile_bytes, lane},
           in_map - tile * parts,
           __ldcg(m.input.count),
           {},
           {}};
    int32_t row[kLaneRows];
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {  // with one map, before it is known whether there are such sites
      row[i] = tile * kTileRows + row_of_lane(lane, i);
      p.site[i] = make_int4(0, 0, 0, 0);
      if (row[i] < m.output.capacity)
        p.site[i] = __ldcg(reinterpret_cast<const int4*>(m.output.sites) + row[i]);
    }
    const int32_t rows = __shfl_sync(0xffffffffu, count, which);
    if (tile * kTileRows >= rows) break;
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) p.present[i] = row[i] < rows;
    switch (maps.planes[which]) {
      case Planes::k1x1:
        map_plane<1, 1>(p);
        break;
      case Planes::k2x2:
        map_plane<2, 2>(p);
        break;
      case Planes::k3x3:
        map_plane<3, 3>(p);
        break;
      case Planes::kOther:
        // find_neighbour reads through the first-level cache, which may be older than the kernel before.
        acquire_device(m.input.count);
        map_offsets(p, parts);
        break;
    }
  }
  if (maps.beside) wait_for_dependency();  // who waits for the maps waits for the kernel before as well
}

}  // namespace

void build_maps(const std::vector<MapView>& maps, bool beside, cudaStream_t stream) {
  MapTable table{};
  int64_t parts = 0;
  const auto launch = [&] {
    if (!table.count) return;
    table.beside = beside;
    const uint32_t blocks = blocks_for(parts, kMapWarps, int64_t(current_limits().multiprocessors) * 12);
    launch_early(map_kernel, dim3(blocks), kMapThreads, 0, current_limits(), stream, table);
    table = {};
    parts = 0;
  };
  for (const MapView& map : maps) {
    const GeometryView& g = map.geometry;
    const Planes planes = planes_of(g);
    const int32_t own = planes == Planes::kOther ? std::min(g.volume, kMostParts) : g.kernel[0];
    table.planes[table.count] = planes;
    table.parts[table.count] = own;
    table.map[table.count++] = map;
    parts += int64_t(map.output.capacity + kTileRows - 1) / kTileRows * own;
    if (table.count == kMaxMaps) launch();
  }
  launch();
}

}  // namespace scn::cuda
