// SPDX-License-Identifier: Apache-2.0
// Functions of plain numbers that kernels on a GPU call as well.
#pragma once

#if defined(__CUDACC__)
#define SCN_FX_BOTH __host__ __device__
#else
#define SCN_FX_BOTH
#endif
