// SPDX-License-Identifier: Apache-2.0
// Less than sixteen float32 lanes, for instruction sets without masks.
#pragma once

#include <cstdint>
#include <cstring>

namespace scn {
namespace {

// The first `count` < 16 lanes; the others are zero, or are not stored.
inline Vec16 load_first(const float* p, int32_t count) {
  float lanes[16] = {};
  std::memcpy(lanes, p, size_t(count) * sizeof(float));
  return load16(lanes);
}
inline void store_first(float* p, Vec16 v, int32_t count) {
  float lanes[16];
  store16(lanes, v);
  std::memcpy(p, lanes, size_t(count) * sizeof(float));
}

}  // namespace
}  // namespace scn
