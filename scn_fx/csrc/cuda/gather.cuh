// SPDX-License-Identifier: Apache-2.0
// Input rows, from memory straight to the registers that multiply them.
#pragma once

#include "cuda/tensor_params.h"

namespace scn::cuda {

/// Fragments of mma.m16n8 for 16 output rows: a lane's share of one unit, one per step.
using UnitFragment = uint32_t[kUnitSteps][4];

/// A lane's entry of a kernel map for output rows i and i + 8 at one offset.
struct MapEntry {
  uint32_t distances;  // of row i in the lower half
  int32_t base;
};
constexpr MapEntry kNoEntry{0xffffffffu, 0};

/// A lane's share of one unit as it comes from memory: bytes of the input rows of output rows i and i + 8.
struct UnitBytes {
  uint4 low, high;

  /// Begins to fetch them: `x` points to the lane's first byte of row 0.
  __device__ __forceinline__ void fetch(int32_t low_row, int32_t high_row, const char* x, int32_t stride) {
    low = load(x, low_row, stride);
    high = load(x, high_row, stride);
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
  __device__ __forceinline__ void to(UnitFragment& a, uint32_t zero) const {
    a[0][0] = copy(low.x, zero);
    a[0][1] = copy(high.x, zero);
    a[0][2] = copy(low.y, zero);
    a[0][3] = copy(high.y, zero);
    a[1][0] = copy(low.z, zero);
    a[1][1] = copy(high.z, zero);
    a[1][2] = copy(low.w, zero);
    a[1][3] = copy(high.w, zero);
  }

 private:
  static __device__ __forceinline__ uint32_t copy(uint32_t word, uint32_t zero) {
    uint32_t to;
    asm volatile("or.b32 %0, %1, %2;" : "=r"(to) : "r"(word), "r"(zero));
    return to;
  }
  static __device__ __forceinline__ uint4 load(const char* x, int32_t row, int32_t stride) {
    uint4 v;
    asm volatile(
        "{\n"
        ".reg .b64 from;\n"
        "mad.wide.s32 from, %5, %6, %4;\n"
        "ld.global.v4.b32 {%0, %1, %2, %3}, [from];\n"
        "}"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(x), "r"(row), "r"(stride));
    return v;
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
