// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace scn {

/// XXH64 with the seed 0, as xxh64sum prints it: a checksum at the speed of memory. It finds damage, not
/// forgery.
uint64_t xxh64(const void* data, size_t size);

}  // namespace scn
