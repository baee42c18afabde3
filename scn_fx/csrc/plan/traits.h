// SPDX-License-Identifier: Apache-2.0
// What plans differ by from backend to backend.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace scn {

struct BackendTraits {
  const char* name;  // in messages, as "the CUDA backend"
  /// Bytes from row to row of a value with so many channels.
  int32_t (*row_bytes)(int32_t channels, ElementType type);
  /// float16 numbers are stored as float32 where a value has fewer channels than this.
  int32_t fewest_half_channels;
  /// Whether layers in float32 read rows of float16.
  bool widens;
  /// Stored forms of one result.
  int32_t most_emissions;
  /// Whether a convolution writes the cells of a dense map itself.
  bool scatters;
  int32_t most_axes;     // of a transposed dense map
  int32_t most_sets;     // of sites
  int32_t most_growths;  // kernel maps that make sites
};

}  // namespace scn
