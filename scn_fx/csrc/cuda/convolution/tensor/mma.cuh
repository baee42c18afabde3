// SPDX-License-Identifier: Apache-2.0
// Tensor-core products. A step is 16 rows x 32 bytes of inputs (32 int8 or 16
// float16 values) times 32 bytes x 8 columns of weights: in bytes, both types have the same fragments.
#pragma once

#include <cstdint>

#include "cuda/convolution/accumulator.cuh"

namespace scn::cuda {

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

}  // namespace scn::cuda
