// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/kernels/kernels.h"

namespace scn {
namespace {

/// Whether this process may use AMX tiles of bytes. Linux has to be asked once, before the first use by any
/// thread, because their registers make every thread's saved state 8 KiB larger.
bool may_use_amx() {
#if defined(__x86_64__) && defined(__linux__) && defined(SYS_arch_prctl)
  static const bool granted = [] {
    constexpr unsigned kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;  // leaf 7, EDX
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    if ((edx & (kAmxTile | kAmxInt8)) != (kAmxTile | kAmxInt8)) return false;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return granted;
#else
  return false;
#endif
}

#if defined(__x86_64__)
/// Whether the instructions of kAvx2Kernels run here; after __builtin_cpu_init().
bool has_avx2() {
  // Clang 14's __builtin_cpu_supports does not know "f16c": leaf 1, ECX bit 29. That the operating system
  // saves AVX registers is part of what it says about AVX2.
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 29));
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/// Whether the kernels of kAvxVnniKernels run here; after __builtin_cpu_init().
bool has_avxvnni() {
  // __builtin_cpu_supports knows "avxvnni" only from GCC 13 on: leaf 7, subleaf 1, EAX bit 4. The kernels
  // also need what every such processor has, and AVX registers that the operating system saves.
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & (1u << 4)) && has_avx2();
}
#endif

/// The tables that this processor runs, best first.
std::vector<const Kernels*> usable_tables() {
  std::vector<const Kernels*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (has_avx2()) {
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      if (may_use_amx()) tables.push_back(&kAmxKernels);
      tables.push_back(&kAvx512VnniKernels);
    }
    if (has_avxvnni()) tables.push_back(&kAvxVnniKernels);
    tables.push_back(&kAvx2Kernels);
  }
#endif
  tables.push_back(&kPortableKernels);
  return tables;
}

}  // namespace

bool runs_here(const Kernels& table) {
  const std::vector<const Kernels*> usable = usable_tables();
  return std::find(usable.begin(), usable.end(), &table) != usable.end();
}

std::string supported_isas() {
  std::string names;
  for (const Kernels* table : usable_tables()) names += (names.empty() ? "" : " ") + std::string(table->name);
  return names;
}

const Kernels& select_kernels() {
  const char* wanted = std::getenv("SCN_FX_ISA");
  for (const Kernels* table : usable_tables()) {
    if (!wanted || !*wanted || !std::strcmp(wanted, table->name)) return *table;
  }
  fail(ErrorKind::kArgument, "SCN_FX_ISA is '", wanted,
       "', but this build and processor support: ", supported_isas(), ". Unset it to let the engine choose.");
}

}  // namespace scn
