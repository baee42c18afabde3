// SPDX-License-Identifier: Apache-2.0
// Functions of plain numbers that kernels on a GPU call as well.
#pragma once

#if defined(__CUDACC__)
#define SCN_FX_BOTH __host__ __device__
/// Functions of values that lie in registers: of a thread of a GPU, or of a processor's lanes.
#define SCN_FX_LANES __device__ __forceinline__
#define SCN_FX_RARE __device__ __forceinline__  // the same, where speed matters less than the size of code
#else
#define SCN_FX_BOTH
#define SCN_FX_LANES inline
#define SCN_FX_RARE __attribute__((noinline))
#endif
