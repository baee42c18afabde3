// SPDX-License-Identifier: Apache-2.0
// The tile instructions that the int8 kernels use: eight tiles of 16 rows of 64 bytes. With
// SCN_FX_EMULATE_AMX they are plain C++ with the same results, so that the kernels can be tested on any
// processor.
#pragma once

#include <cstdint>
#include <cstring>

#if !defined(SCN_FX_EMULATE_AMX)
#include <immintrin.h>

// GCC's tile intrinsics do not say that they read memory, hence the barriers before the first load.
#define SCN_MEMORY_BARRIER() asm volatile("" : : : "memory")
// The number of a tile is part of the instruction, so these cannot be functions.
#define SCN_TILE_ZERO(tile) _tile_zero(tile)
#define SCN_TILE_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define SCN_TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define SCN_TILE_DOT(sums, rows, columns) _tile_dpbssd(sums, rows, columns)

#else

#define SCN_MEMORY_BARRIER() (void)0
#define SCN_TILE_ZERO(tile) scn::emulated_zero(tile)
#define SCN_TILE_LOAD(tile, from, stride) scn::emulated_load(tile, from, stride)
#define SCN_TILE_STORE(tile, to, stride) scn::emulated_store(tile, to, stride)
#define SCN_TILE_DOT(sums, rows, columns) scn::emulated_dot(sums, rows, columns)

#endif

namespace scn {
namespace {

#if !defined(SCN_FX_EMULATE_AMX)

/// Tiles of full size while it lives. Afterwards the operating system need not save them.
class TileScope {
 public:
  TileScope() {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    static_assert(sizeof(config) == 64, "the layout of ldtilecfg");
    asm volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
  }
  ~TileScope() { _tile_release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

#else

/// Rows of a tile: sixteen int32 or 64 bytes.
struct EmulatedTile {
  int8_t row[16][64];
};
EmulatedTile emulated_tiles[8];

class TileScope {
 public:
  // Tiles hold zeros after their configuration; nothing may rely on it, so they hold something else here.
  TileScope() { std::memset(emulated_tiles, 0x5a, sizeof(emulated_tiles)); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

void emulated_zero(int tile) { std::memset(&emulated_tiles[tile], 0, sizeof(EmulatedTile)); }
void emulated_load(int tile, const void* from, int64_t stride) {
  for (int64_t r = 0; r < 16; ++r) {
    std::memcpy(emulated_tiles[tile].row[r], static_cast<const char*>(from) + r * stride, 64);
  }
}
void emulated_store(int tile, void* to, int64_t stride) {
  for (int64_t r = 0; r < 16; ++r) {
    std::memcpy(static_cast<char*>(to) + r * stride, emulated_tiles[tile].row[r], 64);
  }
}
/// TDPBSSD: sums[m][n] += sum over four bytes i of each of 16 groups g: rows[m][4 g + i] * columns[g][4 n +
/// i].
void emulated_dot(int sums, int rows, int columns) {
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      int32_t sum;
      std::memcpy(&sum, emulated_tiles[sums].row[m] + 4 * n, 4);
      for (int g = 0; g < 16; ++g) {
        for (int i = 0; i < 4; ++i) {
          sum += int32_t(emulated_tiles[rows].row[m][4 * g + i]) * emulated_tiles[columns].row[g][4 * n + i];
        }
      }
      std::memcpy(emulated_tiles[sums].row[m] + 4 * n, &sum, 4);
    }
  }
}

#endif

}  // namespace
}  // namespace scn
