// SPDX-License-Identifier: Apache-2.0
// Launching the Hopper convolution: which shape of block serves a layer, and how its shared memory is
// divided.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "cuda/hopper_convolution.cuh"
#include "cuda/launch.h"

namespace scn::cuda {

template <int N, int ChunkShift, bool Ring>
bool hopper_layout(const TensorParams& p, int32_t limit, HopperLayout* layout) {
  using Shape = HopperShape<N, Ring>;
  constexpr int32_t kPerGroup = kGroupBytes >> (ChunkShift + 4);
  const int32_t groups = (p.map.geometry.volume + kPerGroup - 1) / kPerGroup;
  int32_t element = 1;
  for (int32_t i = 0; i < p.finish.emission_count; ++i)
    element = std::max(element, form_bytes(p.finish.emissions[i].form));
  const auto up = [](int32_t n) { return (n + 127) / 128 * 128; };
  HopperLayout l{};
  l.rows = up((p.map.list_capacity + 1) << (ChunkShift + 4));
  l.table = (groups + 1) * kPerGroup * kTileRows * 2;  // and a spare group
  l.finish_warp = up(stage_bytes(std::min(N, 64), element));
  const auto try_with = [&](int32_t stages, int32_t ring) {
    l.stages = stages;
    l.ring = ring;
    l.weights = Ring ? ring * Shape::kGroupWeights : p.passes * groups * Shape::kGroupWeights;
    l.pipe_at = up(l.weights);
    l.finish_at = l.pipe_at + kPipes * stages * l.stage;
    l.barrier_at = l.finish_at + l.finish_warp * Shape::kConsumerWarps;
    l.total = l.barrier_at + 8 * (kPipes * 2 * stages + 2 * std::max(ring, 1));
    return l.total <= limit;
  };
  bool fits = false;
  const int32_t residual =
      p.finish.residual.kind == Operand::kNone ? 0 : up(kTileRows * p.finish.residual.stride);
  for (const int32_t staged : {residual, 0}) {  // without a place there, it is read from global memory
    l.residual = fits ? l.residual : staged;
    l.stage = l.rows + l.table + l.residual + 128;  // the header
    if (Ring) {
      for (const auto& [stages, ring] : {std::pair{2, 6}, {2, 4}, {2, 3}, {1, 6}, {1, 4}, {1, 3}, {1, 2}})
        fits = fits || try_with(stages, ring);
    } else {
      for (const int32_t stages : {3, 2, 1}) fits = fits || try_with(stages, 0);
    }
  }
  *layout = l;
  return fits;
}

template <typename T, int N, int ChunkShift, bool Ring>
bool launch_hopper_as(const TensorParams& p, int32_t column_blocks, const DeviceLimits& limits,
                      cudaStream_t stream) {
  using Shape = HopperShape<N, Ring>;
  const auto kernel = hopper_convolution<T, N, ChunkShift, Ring>;
  HopperLayout layout{};
  // Two blocks of a small layer share a multiprocessor; each loses a kilobyte to the system.
  bool fits = false;
  if (Shape::kMinBlocks > 1)
    fits = hopper_layout<N, ChunkShift, Ring>(p, (limits.shared_bytes + 1024) / 2 - 1024, &layout);
  if (!fits) fits = hopper_layout<N, ChunkShift, Ring>(p, limits.shared_bytes, &layout);
  if (!fits) return false;
  const void* const symbol = reinterpret_cast<const void*>(kernel);
  allow_shared(symbol, layout.total, limits);
  const int32_t tiles = (p.map.output.capacity + kTileRows - 1) / kTileRows;
  const int32_t blocks =
      std::min((tiles + kPipes - 1) / kPipes,
               blocks_per_multiprocessor(symbol, Shape::kThreads, layout.total) * limits.multiprocessors);
  launch_early(kernel, dim3(uint32_t(std::max(1, blocks)), uint32_t(column_blocks)), Shape::kThreads,
               layout.total, limits, stream, p, layout);
  return true;
}

template <typename T, int ChunkShift>
bool launch_hopper_chunks(const TensorParams& p, int32_t padded, const DeviceLimits& limits,
                          cudaStream_t stream) {
  switch (std::min(padded, 128)) {
    case 16:
      return launch_hopper_as<T, 16, ChunkShift, false>(p, 1, limits, stream);
    case 32:
      return launch_hopper_as<T, 32, ChunkShift, false>(p, 1, limits, stream);
    case 64:
      return launch_hopper_as<T, 64, ChunkShift, false>(p, 1, limits, stream) ||
             launch_hopper_as<T, 64, ChunkShift, true>(p, 1, limits, stream);
    default:
      return launch_hopper_as<T, 128, ChunkShift, true>(p, padded / 128, limits, stream);
  }
}

template <typename T>
bool launch_hopper(const TensorParams& p, int32_t padded, const DeviceLimits& limits, cudaStream_t stream) {
  switch (p.chunk_shift) {
    case 0:
      return launch_hopper_chunks<T, 0>(p, padded, limits, stream);
    case 1:
      return launch_hopper_chunks<T, 1>(p, padded, limits, stream);
    case 2:
      return launch_hopper_chunks<T, 2>(p, padded, limits, stream);
    default:
      return launch_hopper_chunks<T, 3>(p, padded, limits, stream);
  }
}

}  // namespace scn::cuda
