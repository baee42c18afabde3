// SPDX-License-Identifier: Apache-2.0
#include "cpu/operators/functions.h"

#include "core/layer.h"
#include "core/numerics.h"
#include "core/sizes.h"
#include "cpu/operators/operand_rows.h"

namespace scn {
namespace {

std::unique_ptr<float[]> float_result(int64_t rows, int64_t channels, const std::string& layer,
                                      MemoryBudget& budget) {
  const Size count = Size(rows) * channels;
  budget.take(count * sizeof(float), layer, "its result");
  return std::unique_ptr<float[]>(new float[count.count()]);
}

}  // namespace

std::unique_ptr<float[]> add(const AddCall& call, ThreadPool& pool, MemoryBudget& budget) {
  const std::string& layer = call.layer;
  check_rows(call.rows, call.channels, layer);
  const int32_t channels = int32_t(call.channels);
  std::unique_ptr<float[]> y = float_result(call.rows, channels, layer, budget);
  const Kernels& kernels = select_kernels();
  StoreView e = store(ElementType::kFloat32, y.get(), channels, call.round_output);
  e.activation = call.activation;
  Finish f{};
  ResidualView r{};
  Int8Rows first, second;
  std::unique_ptr<float[]> rounded;
  if (call.precision == ElementType::kInt8) {
    const float amax0 = checked_range(call.amax0, "the dynamic range of its first input", layer);
    const float amax1 = checked_range(call.amax1, "the dynamic range of its second input", layer);
    budget.take(int8_bytes(call.rows, channels) * 2 + bytes_at_hand(channels) * pool.size(), layer,
                "its inputs");
    first = quantise_rows(kernels, call.a, call.rows, channels, amax0, layer + ": its first input", pool);
    second = quantise_rows(kernels, call.b, call.rows, channels, amax1, layer + ": its second input", pool);
    f.self_int8 = first.data.get();
    f.stride = int8_row(channels);
    f.channels = channels;
    r.type = ElementType::kInt8;
    r.other = second.data.get();
    r.stride = int8_row(channels);
    r.scales = add_scales(amax0, amax1);
  } else {
    f = float_rows(call.a, channels);
    r.type = ElementType::kFloat32;
    r.other = call.b;
    r.stride = channels;
    if (call.precision == ElementType::kFloat16) {
      rounded = float_result(call.rows, channels, layer, budget);
      const StoreView half = store(ElementType::kFloat32, rounded.get(), channels, true);
      Finish g = float_rows(call.b, channels);
      g.stores = &half;
      g.store_count = 1;
      fail_if_lost(run_finish(kernels, g, call.rows, pool), layer + " (its second input)");
      r.other = rounded.get();
      r.rounds = true;
    }
  }
  f.residual = r;
  f.stores = &e;
  f.store_count = 1;
  fail_if_lost(run_finish(kernels, f, call.rows, pool), layer);
  return y;
}

}  // namespace scn
