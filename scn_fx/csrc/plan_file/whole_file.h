// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace scn {

/// Writes a file: complete, or the one of before stays as it was. Throws kArgument if it cannot be written.
void write_whole_file(const std::string& path, const std::string& bytes);

}  // namespace scn
