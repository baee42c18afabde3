// SPDX-License-Identifier: Apache-2.0
// Prepared weights in a plan: what takes time to make (rounding, quantising, packing, finding 16-bit sums) is
// stored, what follows from it in no time (scales, sums over the input channels) is made again.
#pragma once

#include <string>

#include "core/bytes.h"
#include "cpu/convolution/convolution.h"

namespace scn {

std::string stored_weights(const PreparedWeights& weights);

/// The weights of `layer`, whose `weight` and `bias` are not read. Whatever the bytes are, kernels can
/// compute with the result. Throws kPlan unless they are of such a layer, and what check_weights() does for
/// ranges.
PreparedWeights read_stored_weights(ByteSpan bytes, const LayerWeights& layer);

}  // namespace scn
