// SPDX-License-Identifier: Apache-2.0
// What kernels of all kinds share: values that a warp has in common, sums over a warp, copies to shared
// memory, order between kernels.
#pragma once

#include <cstdint>

namespace scn::cuda {

/// `v` of a value that all lanes of the warp have in common: compilers then keep it, and what follows from
/// it, in uniform registers.
__device__ __forceinline__ int32_t uniform(int32_t v) { return __shfl_sync(0xffffffffu, v, 0); }

__device__ __forceinline__ int32_t load_shared(uint32_t address) {
  int32_t v;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(address));
  return v;
}

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ int32_t warp_inclusive(int32_t v) {
  const int32_t lane = threadIdx.x & 31;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int32_t below = __shfl_up_sync(0xffffffffu, v, d);
    if (lane >= d) v += below;
  }
  return v;
}

__device__ __forceinline__ int32_t warp_sum(int32_t v) {
#pragma unroll
  for (int d = 16; d; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  return v;
}

__device__ __forceinline__ int32_t warp_min(int32_t v) {
#if __CUDA_ARCH__ >= 800
  return __reduce_min_sync(0xffffffffu, v);
#else
#pragma unroll
  for (int d = 16; d; d /= 2) v = min(v, __shfl_xor_sync(0xffffffffu, v, d));
  return v;
#endif
}

/// Copies 16 bytes from global to shared memory, past the registers where the hardware can.
__device__ __forceinline__ void copy_async(uint32_t to, const void* from) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
#else
  const uint4 v = *static_cast<const uint4*>(from);
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
#endif
}

/// The same for 4 bytes.
__device__ __forceinline__ void copy_async_word(uint32_t to, const void* from) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
#else
  const uint32_t v = *static_cast<const uint32_t*>(from);
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
#endif
}

__device__ __forceinline__ void wait_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/// Programmatic dependent launch, where the hardware has it: waits until the kernels this one depends on have
/// ended and their writes are visible; lets the kernels that depend on this one start their preparations.
__device__ __forceinline__ void wait_for_dependency() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// What other blocks wrote before is read from now on, also through the first-level cache. `word`: anywhere
/// in global memory. An acquiring load empties that cache as a fence does, but waits for none of the thread's
/// own writes.
__device__ __forceinline__ void acquire_device(const int32_t* word) {
#if __CUDA_ARCH__ >= 700
  asm volatile("{ .reg .b32 unused; ld.acquire.gpu.global.b32 unused, [%0]; }" ::"l"(word) : "memory");
#endif
}

/// A warp waits for the kernels before this one, and then reads what they wrote through the first-level
/// cache, which may hold lines from before. `word`: as above.
__device__ __forceinline__ void wait_for_rows(const int32_t* word) {
  wait_for_dependency();
  if ((threadIdx.x & 31) == 0) acquire_device(word);
  __syncwarp();
}

}  // namespace scn::cuda
