// SPDX-License-Identifier: Apache-2.0
#include "plan/arena.h"

#include <algorithm>
#include <numeric>

namespace scn {

int64_t place_spans(std::vector<Span>& spans) {
  const auto room = [](const Span& s) {
    return (s.bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  };
  std::vector<size_t> order(spans.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return room(spans[a]) > room(spans[b]); });
  std::vector<const Span*> placed;  // by offset
  int64_t total = 0;
  for (const size_t index : order) {
    Span& span = spans[index];
    const int64_t wanted = room(span);
    int64_t best = -1, smallest = 0, end = 0;
    for (const Span* other : placed) {
      if (other->last < span.first || span.last < other->first) continue;
      const int64_t gap = other->offset - end;
      if (gap >= wanted && (best < 0 || gap < smallest)) {
        best = end;
        smallest = gap;
      }
      end = std::max(end, other->offset + room(*other));
    }
    span.offset = best < 0 ? end : best;
    total = std::max(total, span.offset + wanted);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), &span,
                                   [](const Span* a, const Span* b) { return a->offset < b->offset; }),
                  &span);
  }
  return total;
}

}  // namespace scn
