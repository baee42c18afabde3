// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace scn {

using Sha256 = std::array<uint8_t, 32>;

/// The SHA-256 of FIPS 180-4, as sha256sum prints it.
Sha256 sha256(const void* data, size_t size);

}  // namespace scn
