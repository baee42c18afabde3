// SPDX-License-Identifier: Apache-2.0
// One block of memory for buffers that do not all live at the same time.
#pragma once

#include <cstdint>
#include <vector>

namespace scn {

/// A buffer in an arena: its contents count from step `first` to step `last`, both included.
struct Span {
  int64_t bytes = 0;
  int first = 0, last = 0;
  int64_t offset = 0;  // a multiple of kArenaAlignment
};
constexpr int64_t kArenaAlignment = 256;

/// Chooses offsets so that spans that live at the same step lie apart. Returns the bytes of the arena: at
/// least the most that live at one step, seldom much more (greedy: larger spans first, each into the smallest
/// gap that takes it).
int64_t place_spans(std::vector<Span>& spans);

}  // namespace scn
