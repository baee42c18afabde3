// SPDX-License-Identifier: Apache-2.0
#include "cpu/operators/weight_gradient.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "core/failures.h"
#include "core/sizes.h"
#include "cpu/convolution/convolution.h"
#include "cpu/kernels/kernels.h"
#include "cpu/operators/functions.h"

namespace scn {
namespace {

constexpr int64_t kPairs = 64;          // gathered at a time: what 128 channels take stays in a nearby cache
constexpr int64_t kPartRows = 1 << 15;  // output rows whose sums are kept apart

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

std::unique_ptr<float[]> weight_gradient(const WeightGradientCall& call, ThreadPool& pool,
                                         MemoryBudget& budget) {
  const std::string& layer = call.layer;
  check_rows(call.in_sites, call.in_channels, layer);
  check_rows(call.out_sites, call.out_channels, layer, "the gradient");
  check_depth({call.offsets, call.in_channels, ElementType::kFloat32, layer});
  const int64_t outs = round_up(call.out_channels, 4), width = round_up(call.in_channels, 16);
  const int64_t parts = std::max<int64_t>(1, (call.out_sites + kPartRows - 1) / kPartRows);
  const Size block = Size(outs) * width;
  const Size count = Size(call.out_channels) * call.offsets * call.in_channels;
  const Size gathered = Size(kPairs) * (outs + width);
  budget.take((block * call.offsets * parts + count) * sizeof(float), layer, "the gradient of its weight");
  budget.take(gathered * sizeof(float) * pool.size(), layer, "gathered rows");
  std::vector<float> sums((block * call.offsets * parts).count(), 0.0f);
  std::unique_ptr<float[]> result(new float[count.count()]);
  pool.reserve_scratch((gathered * sizeof(float)).value());
  const Kernels& kernels = select_kernels();
  std::atomic<int32_t> wrong{-1};
  pool.for_each(call.offsets * parts, 1, [&](int64_t begin, int64_t end, int thread) {
    float* const rows = static_cast<float*>(pool.scratch(thread));
    float* const columns = rows + kPairs * outs;
    std::memset(rows, 0, (gathered * sizeof(float)).count());  // what pads rows stays zero
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task / parts, first = task % parts * kPartRows;
      const int64_t last = std::min(first + kPartRows, call.out_sites);
      int64_t held = 0;
      const auto add = [&] {
        kernels.add_outer(rows, int32_t(outs), columns, int32_t(width), held,
                          &sums[size_t(task * outs * width)]);
        held = 0;
      };
      for (int64_t row = first; row < last; ++row) {
        const int32_t in = *static_cast<const volatile int32_t*>(call.map + row * call.offsets + k);
        if (in == -1) continue;
        if (in < 0 || in >= call.in_sites) {
          wrong = in;
          return;
        }
        std::memcpy(rows + held * outs, call.grad + row * call.out_channels,
                    size_t(call.out_channels) * sizeof(float));
        std::memcpy(columns + held * width, call.features + in * call.in_channels,
                    size_t(call.in_channels) * sizeof(float));
        if (++held == kPairs) add();
      }
      if (held) add();
    }
  });
  if (wrong != -1) fail_map_entry(wrong, call.in_sites, layer);
  pool.for_each(call.offsets, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t k = begin; k < end; ++k) {
      for (int64_t o = 0; o < call.out_channels; ++o) {
        float* const to = &result[size_t((o * call.offsets + k) * call.in_channels)];
        for (int64_t c = 0; c < call.in_channels; ++c) {
          float sum = 0.0f;
          for (int64_t part = 0; part < parts; ++part)
            sum += sums[size_t(((k * parts + part) * outs + o) * width + c)];
          to[c] = sum;
        }
      }
    }
  });
  return result;
}

}  // namespace scn
