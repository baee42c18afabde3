// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace scn {

/// The bytes of a regular file of at most `most` bytes. Throws kOnnx without opening what could block or
/// never end: folders, pipes, sockets and devices.
std::string read_regular_file(const std::string& path, int64_t most);

}  // namespace scn
