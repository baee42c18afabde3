// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/both.h"

namespace scn {

/// What a pooling layer makes of the neighbours of a site, or of all sites of a batch entry.
enum class Pooling : int32_t { kMax, kMean, kSum };

/// Inputs of a union of sites. Their kernel maps are parameters of one kernel, of which there are 4 KiB.
constexpr int32_t kMostUnionParts = 8;

/// The larger one, the first of two equal ones; NaN if one of them is.
SCN_FX_BOTH inline float larger(float a, float b) { return b <= a || a != a ? a : b; }

/// Rows of a batch entry that global pooling adds up one after another, before it adds up their sums: results
/// then depend on no number of threads.
constexpr int32_t kPoolChunk = 256;

/// Where the chunks of a batch entry begin among those of all entries, if its rows begin at `first`: none
/// share a place, some places stay empty. With all rows and the batch size, the number of places.
SCN_FX_BOTH constexpr int64_t chunk_place(int64_t first, int64_t entry) { return first / kPoolChunk + entry; }

}  // namespace scn
