// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <utility>
#include <vector>

#include "core/layer.h"
#include "core/numerics.h"
#include "core/sizes.h"
#include "cpu/convolution/convolution.h"
#include "cpu/maps/kernel_map.h"
#include "cpu/operators/functions.h"
#include "cpu/operators/operand_rows.h"

namespace scn {
namespace {

/// A call that has been checked, its operands in the forms that kernels read, and room for its result.
class PreparedCall {
 public:
  PreparedCall(const ConvolutionCall& call, ThreadPool& pool, MemoryBudget& budget);

  ConvProblem problem() const { return {call_.precision, in_, out_, offsets_, x_.nonnegative, x_.half}; }
  ConvConfig config() const {
    return call_.kernel.empty() ? choose(problem(), kernels_) : choose(problem(), call_.kernel, call_.layer);
  }
  void run(const ConvConfig& config);
  Convolved result() { return std::move(result_); }

 private:
  void take_memory(MemoryBudget& budget) const;
  void prepare_features();
  Size half_count() const { return Size(call_.in_sites) * half_row(in_) + kHalfPadding; }

  const ConvolutionCall& call_;
  ThreadPool& pool_;
  const Kernels& kernels_ = select_kernels();
  int32_t in_, out_, offsets_;
  float amax_ = 0.0f, output_amax_ = 0.0f;
  PreparedWeights weights_;
  KernelMap map_;
  Int8Rows quantised_;
  std::vector<uint16_t> rounded_;
  FeatureRows x_;
  Convolved result_;
};

/// The call, once its sizes are known to be of 32 bits.
const ConvolutionCall& checked(const ConvolutionCall& call) {
  check_sizes(call);
  return call;
}

int64_t result_row(ElementType type, int32_t channels) {
  return type == ElementType::kInt8      ? int8_row(channels)
         : type == ElementType::kFloat16 ? half_row(channels)
                                         : channels;
}

PreparedCall::PreparedCall(const ConvolutionCall& call, ThreadPool& pool, MemoryBudget& budget)
    : call_(checked(call)),
      pool_(pool),
      in_(int32_t(call.in_channels)),
      out_(int32_t(call.out_channels)),
      offsets_(int32_t(call.offsets)),
      x_{call.features, in_, false, false} {
  if (call.precision == ElementType::kInt8)
    amax_ = checked_range(call.input_amax, "the dynamic range of its input", call.layer);
  result_.type = result_type(call);
  if (result_.type == ElementType::kInt8)
    output_amax_ = checked_range(call.output_amax, "the dynamic range of its result", call.layer);
  result_.columns = result_row(result_.type, out_);
  take_memory(budget);
  result_.rows.reset(
      new char[(Size(call.out_sites) * result_.columns * element_bytes(result_.type)).count()]);
  weights_ = prepare_weights(
      {call.weight, call.bias, out_, offsets_, in_, call.precision, amax_, call.weight_amax, call.layer});
  map_.assign(call.map, call.out_sites, offsets_, call.in_sites, call.layer, pool);
  prepare_features();
}

void PreparedCall::take_memory(MemoryBudget& budget) const {
  const std::string& layer = call_.layer;
  // as they are prepared: rounded, and once more as int8
  budget.take(Size(out_) * offsets_ * in_ * (sizeof(float) + 1) +
                  prepared_bytes(call_.precision, out_, offsets_, in_),
              layer, "its weight");
  budget.take(KernelMap::bytes_for(call_.out_sites, offsets_), layer, "its kernel map");
  budget.take(convolution_scratch(out_, offsets_, in_) * pool_.size(), layer,
              "the sums of its output channels");
  if (call_.precision == ElementType::kInt8)
    budget.take(int8_bytes(call_.in_sites, in_) + bytes_at_hand(in_) * pool_.size(), layer, "its input");
  if (call_.precision == ElementType::kFloat16)
    budget.take(half_count() * sizeof(uint16_t), layer, "its input");
  budget.take(Size(call_.out_sites) * result_.columns * element_bytes(result_.type), layer, "its result");
}

void PreparedCall::prepare_features() {
  if (call_.precision == ElementType::kInt8) {
    quantised_ = quantise_rows(kernels_, call_.features, call_.in_sites, in_, amax_,
                               call_.layer + ": its input", pool_);
    x_ = {quantised_.data.get(), int8_row(in_), quantised_.nonnegative, false};
  } else if (call_.precision == ElementType::kFloat16) {
    rounded_.resize(half_count().count());
    const StoreView e = store(ElementType::kFloat16, rounded_.data(), half_row(in_), true);
    Finish f = float_rows(call_.features, in_);
    f.stores = &e;
    f.store_count = 1;
    fail_if_lost(run_finish(kernels_, f, call_.in_sites, pool_), call_.layer + " (its input)");
    x_ = {rounded_.data(), half_row(in_), false, true};
  }
}

void PreparedCall::run(const ConvConfig& config) {
  const float factor = result_.type == ElementType::kInt8 ? int8_factor(output_amax_) : 0.0f;
  const StoreView e = store(result_.type, result_.rows.get(), result_.columns, call_.round_output, factor);
  Finish f{};
  f.activation = call_.activation;
  f.stores = &e;
  f.store_count = 1;
  fail_if_lost(run_convolution(kernels_, config, weights_, x_, map_.view(), call_.out_sites, f, pool_),
               call_.layer);
}

}  // namespace

Convolved convolve(const ConvolutionCall& call, ThreadPool& pool, MemoryBudget& budget) {
  using Clock = std::chrono::steady_clock;
  PreparedCall prepared(call, pool, budget);
  const ConvConfig config = prepared.config();
  prepared.run(config);
  std::vector<double> seconds;
  for (int32_t i = 0; i < call.repeat; ++i) {
    const Clock::time_point start = Clock::now();
    prepared.run(config);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  Convolved result = prepared.result();
  result.kernel = config.name;
  result.seconds = std::move(seconds);
  return result;
}

std::vector<std::string> convolution_kernels(const ConvolutionCall& call, ThreadPool& pool,
                                             MemoryBudget& budget) {
  return kernel_names(PreparedCall(call, pool, budget).problem());
}

}  // namespace scn
