// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution/problem.h"

#include "core/types.h"

namespace scn::cuda {

std::string ConvProblem::text() const {
  return std::string(element_name(precision)) + " " + std::to_string(in_channels) + " -> " +
         std::to_string(out_channels) + ", " + std::to_string(offsets) + " offsets, rows of " +
         std::to_string(in_bytes) + " B, up to " + std::to_string(capacity) + " sites, " +
         finish_name(finish);
}

}  // namespace scn::cuda
