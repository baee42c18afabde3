// SPDX-License-Identifier: Apache-2.0
// Writing the records of a tiled kernel map. A warp has a tile; a lane has the two output rows that stand
// side by side in the record, so that it stores both distances at once and a warp one offset's 128 bytes.
#pragma once

#include "cuda/runtime/device_code.cuh"
#include "cuda/views.h"

namespace scn::cuda {

constexpr int kLaneRows = 2, kRowStep = 8;  // rows of a lane, and from one to the other
constexpr int32_t kFarthest = kNoNeighbour - 1;
static_assert(kTileRows == 32 * kLaneRows, "a warp has a tile");
static_assert(row_place(1) == 2 && row_place(kRowStep) == 1, "a lane's rows stand side by side");

/// Row `i` of a lane, in its tile.
__device__ __forceinline__ int32_t row_of_lane(int32_t lane, int i) {
  return lane / kRowStep * 16 + lane % kRowStep + i * kRowStep;
}

/// The record of a warp's tile.
struct Record {
  const MapView& map;
  char* record;
  int32_t lane;
};

/// Stores the distances of one offset, by which the lane's rows read (kNoNeighbour: none).
__device__ __forceinline__ void store_distances(const Record& p, int32_t k, uint32_t low, uint32_t high) {
  reinterpret_cast<uint32_t*>(p.record + k * kTileRows * 2)[p.lane] = low | high << 16;
}

/// Stores one offset, of which the lane's rows read `row` (-1: none); returns its base. Where a distance does
/// not fit, distances still tell who has a neighbour.
__device__ __forceinline__ int32_t store_offset(const Record& p, int32_t k, const int32_t (&row)[kLaneRows],
                                                int32_t base, bool far) {
  uint32_t distance[kLaneRows];
#pragma unroll
  for (int i = 0; i < kLaneRows; ++i)
    distance[i] = uint32_t(row[i] < 0 ? kNoNeighbour : far ? 0 : row[i] - base);
  store_distances(p, k, distance[0], distance[1]);
  if (!far) return base;
  int32_t slot = 0;
  if (p.lane == 0) slot = atomicAdd(p.map.far_count, 1);
  slot = __shfl_sync(0xffffffffu, slot, 0);
  reinterpret_cast<int2*>(p.map.far + slot * kTileRows)[p.lane] = make_int2(row[0], row[1]);
  return ~slot;
}

__device__ __forceinline__ int32_t* bases_of(const Record& p) {
  return reinterpret_cast<int32_t*>(p.record + bases_at(p.map.geometry.volume));
}

/// Stores one offset, of which the lane's rows read any rows (-1: none), and its base.
__device__ __forceinline__ void store_any(const Record& p, int32_t k, const int32_t (&row)[kLaneRows]) {
  int32_t lowest = kNoRow, highest = -1;
#pragma unroll
  for (int i = 0; i < kLaneRows; ++i) {
    if (row[i] < 0) continue;
    lowest = min(lowest, row[i]);
    highest = max(highest, row[i]);
  }
  lowest = warp_min(lowest);
  const int32_t base = lowest == kNoRow ? 0 : lowest;
  const bool far = __any_sync(0xffffffffu, highest - base > kFarthest);
  const int32_t stored = store_offset(p, k, row, base, far);
  if (p.lane == 0) bases_of(p)[k] = stored;
}

}  // namespace scn::cuda
