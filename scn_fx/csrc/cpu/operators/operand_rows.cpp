// SPDX-License-Identifier: Apache-2.0
#include "cpu/operators/operand_rows.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/failures.h"
#include "core/numerics.h"

namespace scn {
namespace {

constexpr float kMostFloat = std::numeric_limits<float>::max();

/// Values of a few rows at a time, so that they stay in a nearby cache.
int64_t rows_at_hand(int32_t channels) { return std::max<int64_t>(1, (int64_t(1) << 13) / channels); }

}  // namespace

StoreView store(ElementType type, void* out, int64_t stride, bool rounds, float factor) {
  return {type, false, nullptr, nullptr, {}, rounds, factor, out, stride, int32_t(stride)};
}

void fail_if_lost(const Overflow& lost, const std::string& layer) {
  if (lost.before_add || lost.stored) fail_overflow(layer, std::max(lost.before_add, lost.stored));
}

Finish float_rows(const float* rows, int32_t channels) {
  Finish f{};
  f.float_sums = rows;
  f.stride = channels;
  f.channels = channels;
  return f;
}

Size bytes_at_hand(int32_t channels) { return Size(rows_at_hand(channels)) * channels * sizeof(float); }

Int8Rows quantise_rows(const Kernels& kernels, const float* x, int64_t rows, int32_t channels, float amax,
                       const std::string& what, ThreadPool& pool) {
  Int8Rows out{std::unique_ptr<int8_t[]>(new int8_t[int8_bytes(rows, channels).count()]), true};
  const StoreView e = store(ElementType::kInt8, out.data.get(), int8_row(channels), false, int8_factor(amax));
  std::atomic<int64_t> wrong{0};
  std::atomic<bool> negative{false};
  pool.reserve_scratch(bytes_at_hand(channels).value());
  pool.for_each(rows, rows_at_hand(channels), [&](int64_t begin, int64_t end, int thread) {
    float* const held = static_cast<float*>(pool.scratch(thread));
    const int64_t count = (end - begin) * channels;
    std::memcpy(held, x + begin * channels, size_t(count) * sizeof(float));
    int32_t found = 0;
    for (int64_t i = 0; i < count; ++i) found += !(std::fabs(held[i]) <= kMostFloat);
    if (found) {
      wrong += found;
      return;
    }
    Finish f = float_rows(held, channels);
    f.stores = &e;
    f.store_count = 1;
    kernels.finish(f, begin, end);
    int8_t signs = 0;
    for (int64_t i = begin * int8_row(channels); i < end * int8_row(channels); ++i)
      signs |= out.data[size_t(i)];
    if (signs < 0) negative = true;
  });
  if (wrong) fail_not_finite(what, wrong);
  out.nonnegative = !negative;
  return out;
}

}  // namespace scn
