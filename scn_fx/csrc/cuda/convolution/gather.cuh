// SPDX-License-Identifier: Apache-2.0
// Input rows, from memory straight to the registers that multiply them.
#pragma once

#include "cuda/convolution/tensor_params.h"

namespace scn::cuda {

/// Fragments of mma.m16n8 for 16 output rows: a lane's share of 64 bytes of K, one per step.
using PartFragment = uint32_t[kPartSteps][4];

/// 16 bytes of a row, if it `exists`; otherwise `to` stays what it was. (Reading zeros somewhere instead
/// would cost as much as any row: it is reading that limits these kernels.)
__device__ __forceinline__ void load_if(uint4& to, const char* from, bool exists) {
  asm volatile(
      "{\n"
      ".reg .pred exists;\n"
      "setp.ne.s32 exists, %5, 0;\n"
      "@exists ld.global.v4.b32 {%0, %1, %2, %3}, [%4];\n"
      "}"
      : "+r"(to.x), "+r"(to.y), "+r"(to.z), "+r"(to.w)
      : "l"(from), "r"(int32_t(exists)));
}
/// Where row `row` is, in one instruction.
__device__ __forceinline__ const char* row_at(const char* x, int32_t row, int32_t stride) {
  const char* from;
  asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(from) : "r"(row), "r"(stride), "l"(x));
  return from;
}

/// A lane's entry of a kernel map for output rows i and i + 8 at one offset.
struct MapEntry {
  uint32_t distances;  // of row i in the lower half
  int32_t base;

  __device__ __forceinline__ bool has_low() const { return (distances & 0xffffu) != uint32_t(kNoNeighbour); }
  __device__ __forceinline__ bool has_high() const { return distances < uint32_t(kNoNeighbour) << 16; }
  __device__ __forceinline__ int32_t low() const { return base + int32_t(distances & 0xffffu); }
  __device__ __forceinline__ int32_t high() const { return base + int32_t(distances >> 16); }
};

/// A lane's share of one unit as it comes from memory: bytes of the input rows of output rows i and i + 8.
template <int Parts>
struct UnitBytes {
  uint4 low[Parts] = {}, high[Parts] = {};
  uint32_t distances = 0xffffffffu;  // say which of them exist

  /// Begins to fetch them: `x` points to the lane's first byte of row 0. No far slots.
  __device__ __forceinline__ void fetch(const MapEntry& entry, const char* x, int32_t stride) {
    distances = entry.distances;
    load(low, row_at(x, entry.low(), stride), entry.has_low());
    load(high, row_at(x, entry.high(), stride), entry.has_high());
  }
  /// The same where the entry may name a far slot; `far` points to the lane's pair of rows in slot 0.
  __device__ __forceinline__ void fetch_far(const MapEntry& entry, const int32_t* far, const char* x,
                                            int32_t stride) {
    if (entry.base >= 0) return fetch(entry, x, stride);
    const int2 rows = *reinterpret_cast<const int2*>(far + int64_t(~entry.base) * kTileRows);
    distances = (rows.x < 0 ? 0xffffu : 0u) | (rows.y < 0 ? 0xffff0000u : 0u);
    load(low, row_at(x, rows.x, stride), rows.x >= 0);
    load(high, row_at(x, rows.y, stride), rows.y >= 0);
  }

  /// As fragments, zero where there is no row. Selecting here, not loading into zeros, lets loads stay under
  /// way: they need not go where the fragments are.
  __device__ __forceinline__ void to(PartFragment& a, int part) const {
    const MapEntry entry{distances, 0};
    const bool has_low = entry.has_low(), has_high = entry.has_high();
    a[0][0] = chosen(low[part].x, has_low);
    a[0][1] = chosen(high[part].x, has_high);
    a[0][2] = chosen(low[part].y, has_low);
    a[0][3] = chosen(high[part].y, has_high);
    a[1][0] = chosen(low[part].z, has_low);
    a[1][1] = chosen(high[part].z, has_high);
    a[1][2] = chosen(low[part].w, has_low);
    a[1][3] = chosen(high[part].w, has_high);
  }

 private:
  static __device__ __forceinline__ uint32_t chosen(uint32_t word, bool exists) {
    uint32_t to;  // volatile: before the products begin
    asm volatile(
        "{\n"
        ".reg .pred exists;\n"
        "setp.ne.s32 exists, %2, 0;\n"
        "selp.b32 %0, %1, 0, exists;\n"
        "}"
        : "=r"(to)
        : "r"(word), "r"(int32_t(exists)));
    return to;
  }
  static __device__ __forceinline__ void load(uint4 (&to)[Parts], const char* from, bool exists) {
#pragma unroll
    for (int part = 0; part < Parts; ++part) load_if(to[part], from + part * kPartBytes, exists);
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
