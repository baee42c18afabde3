// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <cstring>
#include <string>

#include "cpu/kernels.h"
#include "error.h"

namespace scn {
namespace {

bool has_avx2() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

}  // namespace

const char* supported_isas() { return has_avx2() ? "avx2 portable" : "portable"; }

const Kernels& select_kernels() {
  const char* wanted = std::getenv("SCN_FX_ISA");
  const bool any = !wanted || !*wanted;
#if defined(__x86_64__)
  if (has_avx2() && (any || !std::strcmp(wanted, "avx2"))) return kAvx2Kernels;
#endif
  if (any || !std::strcmp(wanted, "portable")) return kPortableKernels;
  fail(ErrorKind::kArgument, "SCN_FX_ISA is '", wanted,
       "', but this build and processor support: ", supported_isas(), ". Unset it to let the engine choose.");
}

}  // namespace scn
