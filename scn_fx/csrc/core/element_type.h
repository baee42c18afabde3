// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace scn {

/// Of stored values, of what a layer computes in, and of what its result is rounded to.
enum class ElementType : int32_t { kInt8, kFloat16, kFloat32 };

}  // namespace scn
