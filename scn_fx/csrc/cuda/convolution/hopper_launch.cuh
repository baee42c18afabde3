// SPDX-License-Identifier: Apache-2.0
// Launching the Hopper convolution: which shape of block serves a layer, and how its shared memory is
// divided.
#pragma once

#include <algorithm>

#include "cuda/convolution/hopper_convolution.cuh"
#include "cuda/runtime/launch.h"

namespace scn::cuda {

/// Divides shared memory for `warpgroups` and as many slots of weights as fit; false if there is no room
/// for those of a block of units.
template <int Offsets, int Parts, int Block>
bool hopper_layout(const TensorParams& p, int32_t warpgroups, bool ring, int32_t limit,
                   HopperLayout* layout) {
  using Shape = HopperShape<Offsets, Parts, Block>;
  const int32_t volume = p.map.geometry.volume;
  const auto up = [](int32_t n) { return (n + 127) / 128 * 128; };
  HopperLayout l{};
  l.groups = (p.units + Block - 1) / Block * Shape::kGroups;
  l.bases = bases_at(volume) + Shape::kSpare * kTileRows * 2;
  l.table = up(l.bases + ((volume + 3) / 4 * 4 + Shape::kSpare) * 4);
  const int32_t rest = warpgroups * l.table + 2 * kLargestBlock * 4 + 8 * (2 * l.groups + warpgroups);
  l.slots = std::min(l.groups, (limit - rest) / Shape::kGroupWeights);
  if (l.slots < (ring ? Shape::kGroups : l.groups)) return false;
  l.table_at = up(l.slots * Shape::kGroupWeights);
  l.scale_at = l.table_at + warpgroups * l.table;
  l.barrier_at = l.scale_at + 2 * kLargestBlock * 4;
  l.total = l.barrier_at + 8 * ((ring ? 2 : 1) * l.slots + warpgroups);
  *layout = l;
  return l.total <= limit;
}

template <typename T, int Offsets, int Parts, int Block, int Ring, FinishKind Kind, bool OnePass>
bool launch_hopper_as(const TensorParams& p, int32_t column_blocks, const DeviceLimits& limits,
                      cudaStream_t stream) {
  const auto kernel = hopper_convolution<T, Offsets, Parts, Block, Ring, Kind, OnePass>;
  HopperLayout layout{};
  // Resident weights that leave room for one or two warpgroups do worse than a ring with three.
  int32_t warpgroups = Ring ? Ring : kWarpgroups;
  const int32_t fewest = Ring ? 1 : 3;
  while (!hopper_layout<Offsets, Parts, Block>(p, warpgroups, Ring != 0, limits.shared_bytes, &layout)) {
    if (--warpgroups < fewest) return false;
  }
  const void* const symbol = reinterpret_cast<const void*>(kernel);
  const int32_t threads = warpgroups * 128;
  allow_shared(symbol, layout.total, limits);
  const int32_t tiles = (p.map.output.capacity + kTileRows - 1) / kTileRows;
  const int32_t together = blocks_per_multiprocessor(symbol, threads, layout.total) * limits.multiprocessors;
  const int32_t blocks =
      std::min((tiles + warpgroups - 1) / warpgroups, std::max(1, together / column_blocks));
  launch_early(kernel, dim3(uint32_t(blocks), uint32_t(column_blocks)), threads, layout.total, limits, stream,
               p, layout);
  return true;
}

template <typename T, int Offsets, int Parts, int Block, FinishKind Kind, bool OnePass>
bool launch_hopper_passes(const TensorParams& p, int32_t column_blocks, const DeviceLimits& limits,
                          cudaStream_t stream) {
  if (launch_hopper_as<T, Offsets, Parts, Block, 0, Kind, OnePass>(p, column_blocks, limits, stream))
    return true;
  // Three warpgroups of a block have registers for all that they hold. But large layers in float16 with one
  // block of columns mostly have more tiles than three on each multiprocessor.
  constexpr int kSpilling = sizeof(T) == 2 && Parts == 2 && OnePass ? 4 : 3;
  if (column_blocks == 1)
    return launch_hopper_as<T, Offsets, Parts, Block, kSpilling, Kind, OnePass>(p, column_blocks, limits,
                                                                                stream);
  return launch_hopper_as<T, Offsets, Parts, Block, 3, Kind, OnePass>(p, column_blocks, limits, stream);
}

template <typename T, int Offsets, int Parts, int Block, FinishKind Kind>
bool launch_hopper_block(const TensorParams& p, int32_t column_blocks, const DeviceLimits& limits,
                         cudaStream_t stream) {
  // Units of one part only serve rows of one part: a second pass need not be compiled for them.
  if (p.x_stride > Parts * kPartBytes)
    return launch_hopper_passes<T, Offsets, Parts, Block, Kind, Parts == 1>(p, column_blocks, limits, stream);
  return launch_hopper_passes<T, Offsets, Parts, Block, Kind, true>(p, column_blocks, limits, stream);
}

template <typename T, int Offsets, int Parts>
bool launch_hopper_unit(const TensorParams& p, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream) {
  constexpr FinishKind kUsual = sizeof(T) == 1 ? FinishKind::kInt8Rows : FinishKind::kHalfRows;
  constexpr FinishKind kAny = FinishKind::kAny;
  constexpr int kFew = hopper_block(1), kMany = hopper_block(kHopperBlock);
  const int32_t column_blocks = padded / kLargestBlock;
  const FinishKind kind = finish_kind<T>(p.finish);
  if (hopper_block(p.units) == kFew) {  // seldom, mostly the last layer
    return kind == FinishKind::kHalfDense
               ? launch_hopper_block<T, Offsets, Parts, kFew, FinishKind::kHalfDense>(p, column_blocks,
                                                                                      limits, stream)
               : launch_hopper_block<T, Offsets, Parts, kFew, kAny>(p, column_blocks, limits, stream);
  }
  return kind == kUsual
             ? launch_hopper_block<T, Offsets, Parts, kMany, kUsual>(p, column_blocks, limits, stream)
             : launch_hopper_block<T, Offsets, Parts, kMany, kAny>(p, column_blocks, limits, stream);
}

template <typename T>
void launch_hopper(const TensorParams& p, int32_t padded, const DeviceLimits& limits, cudaStream_t stream) {
  const bool done = p.x_stride == 16   ? launch_hopper_unit<T, 4, 1>(p, padded, limits, stream)
                    : p.x_stride == 32 ? launch_hopper_unit<T, 2, 1>(p, padded, limits, stream)
                    : p.x_stride == 64 ? launch_hopper_unit<T, 1, 1>(p, padded, limits, stream)
                                       : launch_hopper_unit<T, 1, 2>(p, padded, limits, stream);
  if (!done)
    fail(ErrorKind::kArgument, "A layer does not fit into the shared memory that was planned for it.");
}

}  // namespace scn::cuda
