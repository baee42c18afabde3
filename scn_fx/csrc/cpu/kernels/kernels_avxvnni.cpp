// SPDX-License-Identifier: Apache-2.0
// AVX2 with the 256-bit VNNI instructions of processors without AVX-512 (Alder Lake onwards, Zen 5).
#if defined(__AVXVNNI__)
#include "cpu/kernels/kernels_avx2-inl.h"

namespace scn {

const Kernels kAvxVnniKernels = {"avxvnni",       gemm_int8,       rows_any_int8, gemm_float,
                                 rows_any_float,  add_outer<true>, finish_rows,   convert_from_half,
                                 convert_to_half, float_loop,      int8_loop};

}  // namespace scn
#endif
