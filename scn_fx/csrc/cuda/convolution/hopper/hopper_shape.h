// SPDX-License-Identifier: Apache-2.0
// What host and device know of Hopper's convolution: its template parameters, and a block's shared memory.
#pragma once

#include <cstdint>

#include "cuda/convolution/finish_kind.h"

namespace scn::cuda {

// The kernel fetches kHopperDepth units ahead, whose weights come as one group, and takes a block of units
// without a branch between them: compilers let all loads of a loop's turn wait together.
constexpr int32_t kHopperDepth = 3, kHopperBlock = 9;

constexpr int32_t kWarpgroups = 4;  // of a block, at most: what registers allow

// Of pairs of blocks: warpgroups of a block, at most, and units without a branch, by the parts of a unit. Two
// blocks of units must have room in shared memory.
constexpr int32_t kPairWarpgroups = 3;
constexpr int32_t kPairBlock[] = {0, kHopperBlock, kHopperDepth};
constexpr int32_t kExchangedBytes = 128 * 32 * 4;  // by a warpgroup: half of its sums

// A warpgroup's room for the cells of a dense map, column by column (dense_cells.cuh). The lanes that write
// the same row of four columns, sixteen apart, meet at no bank.
constexpr int32_t kCellColumnBytes = 64 * 2 + 2, kCellBytes = 64 * kCellColumnBytes;

struct HopperVariant {
  int32_t offsets, parts;  // of a unit
  int32_t block;           // units without a branch: kHopperDepth, for layers of so few, or kHopperBlock
  int32_t ring;  // warpgroups of a block, at most, whose weights come by a ring; 0: all in shared memory
  FinishKind finish;
  bool one_pass;  // a unit is all of a row, or of a pair's half
  bool pair;      // two blocks share a tile
};

/// Shared memory of a block, in bytes from its start; weights come first.
struct HopperLayout {
  int32_t groups;           // of kHopperDepth units: all of K
  int32_t slots;            // for the weights of one group each; as many as there are groups, or a ring
  int32_t table_at, table;  // a warpgroup's map: distances, then bases
  int32_t bases;            // in the table
  int32_t scale_at;         // scales, biases
  int32_t exchange_at;      // a warpgroup's room for a pair's sums, or for cells
  int32_t barrier_at, total;
};

}  // namespace scn::cuda
