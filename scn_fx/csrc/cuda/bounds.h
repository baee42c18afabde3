// SPDX-License-Identifier: Apache-2.0
// What the backend bounds, and how long its rows are. Kernels include this, so it includes nothing.
#pragma once

#include <cstdint>

namespace scn::cuda {

constexpr int kMaxEmissions = 6;  // stored forms of a result
constexpr int kMaxSets = 24;      // of sites: their tables are kernel parameters, of which there are 4 KiB
constexpr int kMaxGrowths = 32;   // kernel maps that make sites, for the same reason
constexpr int kMaxAxes = 8;       // of a transposed dense map

/// Channels in memory: rows are 16, 32, 64 or a multiple of 128 bytes, with zeros behind the last channel.
inline int32_t row_bytes(int32_t channels, int32_t element) {
  const int32_t bytes = channels * element;
  if (bytes > 64) return (bytes + 127) / 128 * 128;
  return bytes <= 16 ? 16 : bytes <= 32 ? 32 : 64;
}

}  // namespace scn::cuda
