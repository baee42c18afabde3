// SPDX-License-Identifier: Apache-2.0
// AVX2, FMA and F16C (Haswell and Zen onwards).
#if defined(__AVX2__)
#include "cpu/kernels/kernels_avx2-inl.h"

namespace scn {

const Kernels kAvx2Kernels = {"avx2",          gemm_int8,       rows_any_int8, gemm_float,
                              rows_any_float,  add_outer<true>, finish_rows,   convert_from_half,
                              convert_to_half, float_loop,      int8_loop};

}  // namespace scn
#endif
