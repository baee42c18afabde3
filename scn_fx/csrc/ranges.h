// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

namespace scn {

/// Whether values can be quantised with a range: it is positive and finite, and so is 127 / amax.
inline bool usable_range(float amax) {
  return amax > 0.0f && std::isfinite(amax) && std::isfinite(127.0f / amax);
}

/// What such a range must be, for messages.
constexpr const char* kUsableRange = "a positive finite number, at least 3.8e-37";

}  // namespace scn
