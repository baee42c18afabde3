// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace scn {

/// What a pooling layer makes of the neighbours of a site.
enum class Pooling : int32_t { kMax, kMean, kSum };

}  // namespace scn
