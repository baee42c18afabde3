// SPDX-License-Identifier: Apache-2.0
// Two blocks of a cluster that share a tile: each multiplies its half of the rows' bytes by all columns,
// sends the other the sums of the columns that it does not finish, and adds what comes to its own.
//
// Nothing here asks for an order of memory beyond that of a block's barriers: what blocks tell each other
// lies in shared memory, and any more would empty the first-level cache.
#pragma once

#include <cstdint>

#include "cuda/convolution/hopper/hopper_shape.h"
#include "cuda/convolution/hopper/wgmma.cuh"

namespace scn::cuda::hopper {

/// Where the other block has what this one has at a shared address.
__device__ __forceinline__ uint32_t address_at(uint32_t shared, uint32_t rank) {
  uint32_t to;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(to) : "r"(shared), "r"(rank));
  return to;
}
/// All threads of both blocks: the other may use this one's barriers (barrier_init_done()); both may.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.aligned;" ::: "memory"); }
__device__ __forceinline__ void arrive_at(uint32_t barrier_of_other) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier_of_other) : "memory");
}

__device__ __forceinline__ uint32_t bits_of(int32_t v) { return uint32_t(v); }
__device__ __forceinline__ uint32_t bits_of(float v) { return __float_as_uint(v); }
__device__ __forceinline__ int32_t plus_bits(int32_t v, uint32_t bits) { return v + int32_t(bits); }
__device__ __forceinline__ float plus_bits(float v, uint32_t bits) {
  return __fadd_rn(v, __uint_as_float(bits));
}

/// A warpgroup's place for sums that come, and two barriers: they have come (an arrival and their bytes);
/// their place at the other block is free again (an arrival of each of its warps).
struct Exchange {
  uint32_t place, came, free;  // shared addresses
  uint32_t rank;               // of this block

  /// `own` becomes the sums of this block's half of the columns, the first half of the row always being the
  /// first operand. `more`: it is not the last time.
  template <typename Sum>
  __device__ __forceinline__ void run(const Sum (&sums)[16][4], Sum (&own)[8][4], int32_t round,
                                      bool more) const {
    const uint32_t in_group = threadIdx.x & 127, parity = uint32_t(round) & 1u, other = rank ^ 1u;
    const uint32_t to = address_at(place, other) + in_group * 16, barrier = address_at(came, other);
    if (in_group == 0) barrier_expect(came, kExchangedBytes);
    if (round) barrier_wait(free, parity ^ 1u);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      uint32_t sent[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        own[n][i] = rank ? sums[8 + n][i] : sums[n][i];
        sent[i] = bits_of(rank ? sums[n][i] : sums[8 + n][i]);
      }
      asm volatile(
          "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::
              "r"(to + uint32_t(n) * 128 * 16),
          "r"(sent[0]), "r"(sent[1]), "r"(sent[2]), "r"(sent[3]), "r"(barrier)
          : "memory");
    }
    barrier_wait(came, parity);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      uint32_t v[4];
      asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                   : "r"(place + in_group * 16 + uint32_t(n) * 128 * 16)
                   : "memory");
#pragma unroll
      for (int i = 0; i < 4; ++i) own[n][i] = plus_bits(own[n][i], v[i]);
    }
    if (more) {
      __syncwarp();
      if ((threadIdx.x & 31) == 0) arrive_at(address_at(free, other));
    }
  }
};

}  // namespace scn::cuda::hopper
