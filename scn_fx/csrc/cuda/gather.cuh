// SPDX-License-Identifier: Apache-2.0
// Input rows, from memory straight to the registers that multiply them.
#pragma once

#include "cuda/tensor_params.h"

namespace scn::cuda {

/// Fragments of mma.m16n8 for 16 output rows: a lane's share of 64 bytes of K, one per step.
using PartFragment = uint32_t[kPartSteps][4];

__device__ __forceinline__ void load_global(uint4& to, const char* from) {
  asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
               : "l"(from));
}

/// A lane's entry of a kernel map for output rows i and i + 8 at one offset.
struct MapEntry {
  uint32_t distances;  // of row i in the lower half
  int32_t base;
};
constexpr MapEntry kNoEntry{0xffffffffu, 0};

/// A lane's share of one unit as it comes from memory: bytes of the input rows of output rows i and i + 8.
template <int Parts>
struct UnitBytes {
  uint4 low[Parts], high[Parts];

  /// Begins to fetch them: `x` points to the lane's first byte of row 0.
  __device__ __forceinline__ void fetch(int32_t low_row, int32_t high_row, const char* x, int32_t stride) {
    load(low, x, low_row, stride);
    load(high, x, high_row, stride);
  }
  /// The same by entry; no far slots.
  __device__ __forceinline__ void fetch(const MapEntry& entry, const char* x, int32_t stride) {
    const uint32_t of_low = entry.distances & 0xffffu;
    fetch(of_low == uint32_t(kNoNeighbour) ? -1 : entry.base + int32_t(of_low),
          entry.distances >= uint32_t(kNoNeighbour) << 16 ? -1 : entry.base + int32_t(entry.distances >> 16), x,
          stride);
  }
  /// The same where the entry may name a far slot; `far` points to the lane's pair of rows in slot 0.
  __device__ __forceinline__ void fetch_far(const MapEntry& entry, const int32_t* far, const char* x,
                                            int32_t stride) {
    if (entry.base >= 0) return fetch(entry, x, stride);
    const int2 rows = *reinterpret_cast<const int2*>(far + int64_t(~entry.base) * kTileRows);
    fetch(rows.x, rows.y, x, stride);
  }

  /// As fragments. `zero` is 0; that no compiler knows so makes these instructions that wait for the loads here,
  /// and not copies that it would move to where the loads begin.
  __device__ __forceinline__ void to(PartFragment& a, int part, uint32_t zero) const {
    a[0][0] = copy(low[part].x, zero);
    a[0][1] = copy(high[part].x, zero);
    a[0][2] = copy(low[part].y, zero);
    a[0][3] = copy(high[part].y, zero);
    a[1][0] = copy(low[part].z, zero);
    a[1][1] = copy(high[part].z, zero);
    a[1][2] = copy(low[part].w, zero);
    a[1][3] = copy(high[part].w, zero);
  }

 private:
  static __device__ __forceinline__ uint32_t copy(uint32_t word, uint32_t zero) {
    uint32_t to;
    asm volatile("or.b32 %0, %1, %2;" : "=r"(to) : "r"(word), "r"(zero));
    return to;
  }
  static __device__ __forceinline__ void load(uint4 (&to)[Parts], const char* x, int32_t row, int32_t stride) {
    const char* from;
    asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(from) : "r"(row), "r"(stride), "l"(x));
#pragma unroll
    for (int part = 0; part < Parts; ++part) load_global(to[part], from + part * kPartBytes);
  }
};

/// Which of a unit's offsets a lane fetches, and which byte of its 64 bytes of row.
template <int Offsets>
__device__ __forceinline__ int32_t lane_offset() {
  return (threadIdx.x & 3) / (4 / Offsets);
}
template <int Offsets>
__device__ __forceinline__ int32_t lane_byte() {
  return (threadIdx.x & (4 / Offsets - 1)) * kLaneBytes;
}

}  // namespace scn::cuda
