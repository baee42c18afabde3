// SPDX-License-Identifier: Apache-2.0
// What host and device know of the tensor-core convolution for all GPUs: its template parameters, and a
// block's shared memory.
#pragma once

#include <cstdint>

#include "core/both.h"
#include "cuda/convolution/finish_kind.h"

namespace scn::cuda {

constexpr int32_t kWarpSites = 32;

struct TensorVariant {
  int32_t block;           // output channels
  int32_t offsets, parts;  // of a unit
  bool resident;           // weights lie in shared memory
  FinishKind finish;
};

/// Units that the kernel holds in registers, for `block` columns and units of so many parts.
SCN_FX_BOTH constexpr int32_t tensor_depth(int32_t block, int32_t parts) {
  return parts == 2 || block > 32 ? 1 : block == 16 ? 3 : 2;
}
/// Units that it takes without a branch between them: fewer of them are less code for the seldom used finish.
SCN_FX_BOTH constexpr int32_t tensor_block(int32_t block, int32_t parts, FinishKind finish) {
  const int32_t depth = tensor_depth(block, parts);
  return depth > 1 && finish != FinishKind::kAny ? 7 : depth;
}
/// Threads of a block, at most. Two blocks fill a multiprocessor, so that one can begin while the other ends.
SCN_FX_BOTH constexpr int32_t tensor_threads(int32_t block) {
  return block == 16 ? 320 : block == 32 ? 288 : 256;
}
/// Entries behind a map's last: of padding units.
SCN_FX_BOTH constexpr int32_t tensor_spare(int32_t block, int32_t offsets, int32_t parts, FinishKind finish) {
  return (parts == 1 ? tensor_block(block, parts, finish) : 1) * offsets;
}

/// Shared memory of a block, in bytes from its start; weights come first.
struct TensorLayout {
  int32_t scale_at;            // scales, biases
  int32_t map_at, map, bases;  // a warp's part of the kernel map: distances, then bases
  int32_t total;
};

}  // namespace scn::cuda
