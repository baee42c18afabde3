// SPDX-License-Identifier: Apache-2.0
#include "cpu/global_pool.h"

#include <algorithm>
#include <atomic>

#include "cpu/rows_at_hand.h"

namespace scn {
namespace {

void find_entries(const Site* sites, int64_t rows, int32_t batch, std::vector<int64_t>* first) {
  first->resize(size_t(batch) + 1);
  const auto before = [](const Site& site, int32_t entry) { return site.batch < entry; };
  const Site* at = sites;
  for (int32_t entry = 0; entry < batch; ++entry) {
    at = std::lower_bound(at, sites + rows, entry, before);
    (*first)[size_t(entry)] = at - sites;
  }
  first->back() = rows;
}

/// The batch entry whose chunks lie at `place`, or end before it.
size_t entry_at(const std::vector<int64_t>& first, int64_t place) {
  size_t low = 0, high = first.size() - 1;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (chunk_place(first[middle], int64_t(middle)) <= place ? low : high) = middle;
  }
  return low;
}

/// Takes `count` further values into what was made of those before.
template <typename Value>
void pool_more(Pooling kind, const Value* values, int32_t count, double* made) {
  if (kind == Pooling::kMax) {
    for (int32_t c = 0; c < count; ++c) made[c] = double(larger(float(made[c]), float(values[c])));
  } else {
    for (int32_t c = 0; c < count; ++c) made[c] += double(values[c]);
  }
}

}  // namespace

int64_t run_global_pool(const Kernels& kernels, Pooling kind, const FeatureRows& x, int32_t channels,
                        const Site* sites, int64_t rows, int32_t batch, bool half, ThreadPool& pool,
                        GlobalPoolMemory* memory, void* out) {
  std::vector<int64_t>& first = memory->first;
  find_entries(sites, rows, batch, &first);
  const int64_t places = chunk_place(rows, batch);
  memory->chunks.resize((Size(places) * channels).value());
  double* const chunks = memory->chunks.data();
  pool.reserve_scratch((Size(channels) * sizeof(float)).value());
  pool.for_each(places, 1, [&](int64_t begin, int64_t end, int thread) {
    const FloatRows input(kernels, channels, static_cast<float*>(pool.scratch(thread)));
    for (int64_t place = begin; place < end; ++place) {
      const size_t entry = entry_at(first, place);
      const int64_t from = first[entry] + (place - chunk_place(first[entry], int64_t(entry))) * kPoolChunk;
      const int64_t to = std::min(from + kPoolChunk, first[entry + 1]);
      if (from >= to) continue;
      double* const made = chunks + place * channels;
      if (kind == Pooling::kMax) {
        std::copy_n(input.row(x, from), channels, made);
      } else {
        std::fill_n(made, channels, 0.0);
      }
      for (int64_t row = from + (kind == Pooling::kMax); row < to; ++row)
        pool_more(kind, input.row(x, row), channels, made);
    }
  });
  std::atomic<int64_t> lost{0};
  pool.for_each(batch, 1, [&](int64_t begin, int64_t end, int thread) {
    float* const result = static_cast<float*>(pool.scratch(thread));
    for (int64_t entry = begin; entry < end; ++entry) {
      const int64_t from = first[size_t(entry)], count = first[size_t(entry) + 1] - from;
      // a sum of a chunk is no negative zero: the first one stands for zero and itself
      double* const made = chunks + chunk_place(from, entry) * channels;
      for (int64_t chunk = 1; chunk * kPoolChunk < count; ++chunk)
        pool_more(kind, made + chunk * channels, channels, made);
      for (int32_t c = 0; c < channels; ++c) {
        result[c] = count == 0               ? 0.0f
                    : kind == Pooling::kMean ? float(made[c] / double(count))
                                             : float(made[c]);
      }
      if (half) {
        lost += kernels.float_to_half(result, static_cast<uint16_t*>(out) + entry * channels, channels);
      } else {
        std::copy_n(result, channels, static_cast<float*>(out) + entry * channels);
      }
    }
  });
  return lost;
}

}  // namespace scn
