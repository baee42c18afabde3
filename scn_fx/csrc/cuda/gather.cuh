// SPDX-License-Identifier: Apache-2.0
// Input rows, from memory straight to the registers that multiply them.
#pragma once

#include "cuda/tensor_params.h"

namespace scn::cuda {

/// Fragments of mma.m16n8 for 16 output rows: a lane's share of one unit, one per step.
template <int Slab>
using UnitFragment = uint32_t[steps_of(Slab)][4];

/// 16 or 8 bytes of row `row`, if it exists; otherwise `to` stays what it was.
template <int Words>
__device__ __forceinline__ void load_row(uint32_t (&to)[Words], const char* x, int32_t row, int32_t stride,
                                         bool exists) {
  if constexpr (Words == 4) {
    asm volatile(
        "{\n"
        ".reg .pred exists;\n"
        ".reg .b64 from;\n"
        "setp.ne.s32 exists, %7, 0;\n"
        "mad.wide.s32 from, %5, %6, %4;\n"
        "@exists ld.global.v4.b32 {%0, %1, %2, %3}, [from];\n"
        "}"
        : "+r"(to[0]), "+r"(to[1]), "+r"(to[2]), "+r"(to[3])
        : "l"(x), "r"(row), "r"(stride), "r"(int32_t(exists)));
  } else {
    asm volatile(
        "{\n"
        ".reg .pred exists;\n"
        ".reg .b64 from;\n"
        "setp.ne.s32 exists, %5, 0;\n"
        "mad.wide.s32 from, %3, %4, %2;\n"
        "@exists ld.global.v2.b32 {%0, %1}, [from];\n"
        "}"
        : "+r"(to[0]), "+r"(to[1])
        : "l"(x), "r"(row), "r"(stride), "r"(int32_t(exists)));
  }
}

/// A lane's entry of a kernel map for output rows i and i + 8 at one offset.
struct MapEntry {
  uint32_t distances;  // of row i in the lower half
  int32_t base;

  __device__ __forceinline__ bool has_low() const { return (distances & 0xffffu) != uint32_t(kNoNeighbour); }
  __device__ __forceinline__ bool has_high() const { return distances < uint32_t(kNoNeighbour) << 16; }
};

/// A lane's share of one unit as it comes from memory: bytes of the input rows of output rows i and i + 8.
template <int Slab>
struct UnitBytes {
  static constexpr int kWords = 2 * steps_of(Slab);
  uint32_t low[kWords] = {}, high[kWords] = {};
  MapEntry entry{0xffffffffu, 0};  // says which of them exist

  /// Begins to fetch them: `x` points to the lane's first byte of row 0. No far slots.
  __device__ __forceinline__ void fetch(const MapEntry& of_unit, const char* x, int32_t stride) {
    entry = of_unit;
    load_row(low, x, entry.base + int32_t(entry.distances & 0xffffu), stride, entry.has_low());
    load_row(high, x, entry.base + int32_t(entry.distances >> 16), stride, entry.has_high());
  }
  /// The same where the entry may name a far slot; `far` points to the lane's pair of rows in slot 0.
  __device__ __forceinline__ void fetch_far(const MapEntry& of_unit, const int32_t* far, const char* x,
                                            int32_t stride) {
    if (of_unit.base >= 0) return fetch(of_unit, x, stride);
    const int2 rows = *reinterpret_cast<const int2*>(far + int64_t(~of_unit.base) * kTileRows);
    entry.distances = (rows.x < 0 ? 0xffffu : 0u) | (rows.y < 0 ? 0xffff0000u : 0u);
    load_row(low, x, rows.x, stride, rows.x >= 0);
    load_row(high, x, rows.y, stride, rows.y >= 0);
  }

  /// As fragments, zero where there is no row. (Selecting here, not loading into zeros, keeps loads in flight: they
  /// need not be where the fragments are.)
  __device__ __forceinline__ void to(UnitFragment<Slab>& a) const {
    const bool has_low = entry.has_low(), has_high = entry.has_high();
#pragma unroll
    for (int step = 0; step < steps_of(Slab); ++step) {
      a[step][0] = has_low ? low[2 * step] : 0;
      a[step][1] = has_high ? high[2 * step] : 0;
      a[step][2] = has_low ? low[2 * step + 1] : 0;
      a[step][3] = has_high ? high[2 * step + 1] : 0;
    }
  }
};

/// The first byte of a unit's 64, 32 or 16 that a lane fetches.
template <int Slab>
__device__ __forceinline__ int32_t lane_byte() {
  const int32_t lane = threadIdx.x & 3;
  return Slab == 64 ? lane * 16 : Slab == 32 ? lane * 8 : (lane & 1) * 8;
}

}  // namespace scn::cuda
