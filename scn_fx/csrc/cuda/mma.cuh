// SPDX-License-Identifier: Apache-2.0
// Tensor-core products and copies to shared memory. A step is 16 rows x 32 bytes of inputs (32 int8 or 16
// float16 values) times 32 bytes x 8 columns of weights: in bytes, both types have the same fragments.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace scn::cuda {

template <typename T>
struct Accumulator;
template <>
struct Accumulator<int8_t> {
  using type = int32_t;
};
template <>
struct Accumulator<__half> {
  using type = float;
};

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

__device__ __forceinline__ void multiply(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                         int8_t) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  const auto eighth = [](int32_t& c0, int32_t& c1, uint32_t x, uint32_t w) {
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+r"(c0), "+r"(c1)
                 : "r"(x), "r"(w));
  };
  eighth(c[0], c[1], a[0], b0);
  eighth(c[0], c[1], a[2], b1);
  eighth(c[2], c[3], a[1], b0);
  eighth(c[2], c[3], a[3], b1);
#endif
}

__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                         __half) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  const auto half_step = [&c](uint32_t x0, uint32_t x1, uint32_t w) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(x0), "r"(x1), "r"(w));
  };
  half_step(a[0], a[1], b0);
  half_step(a[2], a[3], b1);
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

/// What other blocks wrote before is read from now on, also through the first-level cache.
__device__ __forceinline__ void acquire_device() {
#if __CUDA_ARCH__ >= 700
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
#endif
}

}  // namespace scn::cuda
