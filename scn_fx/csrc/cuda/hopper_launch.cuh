// SPDX-License-Identifier: Apache-2.0
// Launching the Hopper convolution: which shape of block serves a layer, and how its shared memory is divided.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <utility>

#include "cuda/hopper_convolution.cuh"
#include "cuda/launch.h"

namespace scn::cuda {

template <typename T, int N, int Pipes, int Share, int ChunkShift, bool Ring>
bool hopper_layout(const TensorParams& p, int32_t limit, HopperLayout* layout) {
  using Shape = HopperShape<T, N, Pipes, Share>;
  constexpr int32_t kPerGroup = kGroupBytes >> (ChunkShift + 4);
  const int32_t groups = (p.map.geometry.volume + kPerGroup - 1) / kPerGroup;
  int32_t element = 1;
  for (int32_t i = 0; i < p.finish.emission_count; ++i)
    element = std::max(element, form_bytes(p.finish.emissions[i].form));
  const auto up = [](int32_t n) { return (n + 127) / 128 * 128; };
  HopperLayout l{};
  l.rows = up((p.map.list_capacity + 1) << (ChunkShift + 4));
  l.table = groups * kPerGroup * kTileRows * 2;
  l.residual = p.finish.residual.kind == Operand::kNone ? 0 : up(kTileRows * p.finish.residual.stride);
  l.stage = l.rows + l.table + l.residual + up(int32_t(sizeof(StageHeader)));
  const int32_t finish = up(stage_bytes(Shape::kColumns, element)) * Shape::kConsumers * 4;
  const auto try_with = [&](int32_t stages, int32_t ring) {
    l.stages = stages;
    l.ring = ring;
    l.weights = Ring ? ring * Shape::kGroupWeights : p.passes * groups * Shape::kGroupWeights;
    l.pipe_at = up(l.weights);
    l.finish_at = l.pipe_at + Pipes * stages * l.stage;
    l.barrier_at = l.finish_at + finish;
    l.total = l.barrier_at + 8 * (Pipes * 2 * stages + 2 * std::max(ring, 1));
    return l.total <= limit;
  };
  *layout = l;
  bool fits = false;
  if (Ring) {
    for (const auto& [stages, ring] : {std::pair{3, 4}, {2, 6}, {2, 4}, {2, 3}, {2, 2}, {1, 4}, {1, 2}}) {
      if (!fits) fits = try_with(stages, ring);
    }
  } else {
    for (const int32_t stages : {4, 3, 2, 1}) {
      if (!fits) fits = try_with(stages, 0);
    }
  }
  *layout = l;
  return fits;
}

template <typename T, int N, int Pipes, int Share, int ChunkShift, bool Ring>
bool launch_hopper_as(const TensorParams& p, int32_t column_blocks, const DeviceLimits& limits, cudaStream_t stream) {
  using Shape = HopperShape<T, N, Pipes, Share>;
  const auto kernel = hopper_convolution<T, N, Pipes, Share, ChunkShift, Ring>;
  HopperLayout layout{};
  // Two blocks of a small layer share a multiprocessor; each loses a kilobyte to the system.
  bool fits = false;
  if (Shape::kMinBlocks > 1)
    fits = hopper_layout<T, N, Pipes, Share, ChunkShift, Ring>(p, (limits.shared_bytes + 1024) / 2 - 1024, &layout);
  if (!fits) fits = hopper_layout<T, N, Pipes, Share, ChunkShift, Ring>(p, limits.shared_bytes, &layout);
  if (!fits) return false;
  const void* const symbol = reinterpret_cast<const void*>(kernel);
  allow_shared(symbol, layout.total, limits);
  const int32_t tiles = (p.map.output.capacity + kTileRows - 1) / kTileRows;
  const int32_t blocks =
      std::min((tiles + Pipes - 1) / Pipes, blocks_per_multiprocessor(symbol, Shape::kThreads, layout.total) *
                                                limits.multiprocessors);
  kernel<<<dim3(uint32_t(std::max(1, blocks)), uint32_t(column_blocks)), Shape::kThreads, size_t(layout.total),
           stream>>>(p, layout);
  check_launch("convolution");
  return true;
}

template <typename T, int ChunkShift>
bool launch_hopper_chunks(const TensorParams& p, int32_t padded, const DeviceLimits& limits, cudaStream_t stream) {
  switch (std::min(padded, 128)) {
    case 16:
      return launch_hopper_as<T, 16, 2, 1, ChunkShift, false>(p, 1, limits, stream);
    case 32:
      return launch_hopper_as<T, 32, 2, 1, ChunkShift, false>(p, 1, limits, stream);
    case 64: {
      static const char* const way = std::getenv("SCN_WAY");
      if (way && launch_hopper_as<T, 64, 2, 1, ChunkShift, false>(p, 1, limits, stream)) return true;
      if (launch_hopper_as<T, 64, 1, 2, ChunkShift, false>(p, 1, limits, stream)) return true;
      return launch_hopper_as<T, 64, 1, 2, ChunkShift, true>(p, 1, limits, stream);
    }
    default:
      return launch_hopper_as<T, 128, 1, 2, ChunkShift, true>(p, padded / 128, limits, stream);
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
