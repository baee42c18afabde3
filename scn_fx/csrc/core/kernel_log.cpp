// SPDX-License-Identifier: Apache-2.0
#include "core/kernel_log.h"

#include <cstdio>
#include <cstdlib>

#include "core/error.h"

namespace scn {

bool print_kernels_wanted() {
  const char* const value = std::getenv("SCN_FX_PRINT_KERNELS");
  const std::string text = value ? value : "";
  if (!text.empty() && text != "0" && text != "1")
    fail(ErrorKind::kArgument, "SCN_FX_PRINT_KERNELS must be '0' or '1', got '", text, "'.");
  return text == "1";
}

void log_kernel(const std::string& layer, const std::string& problem, const std::string& config) {
  const std::string line = "scn-fx: " + layer + ": " + problem + ": " + config + "\n";
  std::fputs(line.c_str(), stderr);
}

}  // namespace scn
