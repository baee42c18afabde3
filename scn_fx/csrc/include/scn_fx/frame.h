// SPDX-License-Identifier: Apache-2.0
// What an engine reads: voxels of one or several scans, with their features.
#pragma once

#include <array>
#include <cstdint>

namespace scn {

using Triple = std::array<int32_t, 3>;  // (z, y, x)

/// A site: batch, z, y, x; the row of an `indices` array. In a network of two dimensions z is 0, in one of
/// one dimension y too.
struct Site {
  int32_t batch, z, y, x;
};
static_assert(sizeof(Site) == 4 * sizeof(int32_t), "indices are read as rows of four int32");

/// A frame as the caller has it. Float32 features are rounded to float16 when they are read.
struct FrameView {
  const void* features = nullptr;  // [sites, channels]
  bool half = false;               // float16 bits instead of float32
  int64_t sites = 0;
  int32_t channels = 0;
  const Site* indices = nullptr;  // [sites], each site once
  int32_t batch = 0;              // 0: the exported one, or the largest batch index + 1
  /// In place of `indices`, for networks of fewer than three dimensions (Engine::ndim) and in host memory:
  /// [sites, ndim + 1], rows of (batch, y, x) or of (batch, x).
  const int32_t* rows = nullptr;
};

}  // namespace scn
