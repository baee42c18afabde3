// SPDX-License-Identifier: Apache-2.0
// Which kernel each layer runs on, printed while a network is loaded.
#pragma once

#include <string>

namespace scn {

/// What the environment variable SCN_FX_PRINT_KERNELS says: 1, or 0 (the default).
bool print_kernels_wanted();

/// One line on stderr.
void log_kernel(const std::string& layer, const std::string& problem, const std::string& config);

}  // namespace scn
