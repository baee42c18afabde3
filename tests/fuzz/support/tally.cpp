// SPDX-License-Identifier: Apache-2.0
#include "tally.h"

#include <cstdio>
#include <cstdlib>

namespace fuzz {
namespace {

Tally counts;

void print() {
  char line[160];
  std::snprintf(line, sizeof(line), "tally: inputs %lld read %lld loaded %lld frames %lld refused %lld\n",
                (long long)counts.inputs, (long long)counts.read, (long long)counts.loaded,
                (long long)counts.frames, (long long)counts.refused);
  std::fputs(line, stderr);
  const char* path = std::getenv("SCN_FX_FUZZ_TALLY");
  if (std::FILE* file = path ? std::fopen(path, "a") : nullptr) {
    std::fputs(line, file);
    std::fclose(file);
  }
}

}  // namespace

Tally& tally() {
  static const bool registered = std::atexit(print) == 0;
  (void)registered;
  return counts;
}

}  // namespace fuzz
