// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace scn {

/// What a pooling layer makes of the neighbours of a site.
enum class Pooling : int32_t { kMax, kMean, kSum };

/// Inputs of a union of sites. Their kernel maps are parameters of one kernel, of which there are 4 KiB.
constexpr int32_t kMostUnionParts = 8;

}  // namespace scn
