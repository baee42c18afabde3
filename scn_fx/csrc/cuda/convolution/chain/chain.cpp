// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution/chain/chain.h"

#include "cuda/convolution/chain/chain_params.h"
#include "cuda/convolution/launch_config.h"

namespace scn::cuda {
namespace {

void fill(const ConvProblem& p, ConvConfig* c) {
  c->block = kInputColumns;
  c->packed_bytes = (Size(p.offsets) * p.in_channels * c->padded * sizeof(float)).value();
  c->threads = kChainThreads;
  c->own_wave = true;
}

void launch_chain(const ConvConfig& c, const ConvCall& call, cudaStream_t stream) {
  ChainParams p{};
  p.map = call.map;
  p.x = static_cast<const char*>(call.x);
  p.x_stride = c.problem.in_bytes;
  p.in_channels = c.problem.in_channels;
  p.padded = c.padded;
  p.weights = reinterpret_cast<const float*>(call.weights.packed);
  p.finish = call.finish;
  void* arguments[] = {&p};
  launch_config(c, arguments, stream);
}

}  // namespace

bool chain::suits(const ConvProblem& p, const DeviceLimits&, ConvConfig* c) {
  fill(p, c);
  c->symbol = kernel(p.precision);
  c->block_rows = kTileRows;
  c->together = 12;
  c->early = false;  // it does not wait for the kernel before by itself
  return true;
}

void chain::launch(const ConvConfig& config, const ConvCall& call, cudaStream_t stream) {
  launch_chain(config, call, stream);
}

bool input_chain::suits(const ConvProblem& p, const DeviceLimits& limits, ConvConfig* c) {
  if (p.precision != ElementType::kFloat16 || p.in_bytes != 16) return false;
  const int32_t channels = p.in_channels <= 4 ? 4 : p.in_channels == 5 ? 5 : 8;  // of the instance
  const int64_t shared = int64_t(p.offsets) * channels * kInputColumns * 4;
  if (shared > limits.shared_bytes) return false;
  fill(p, c);
  c->symbol = kernel(channels);
  c->place = WeightPlace::kResident;
  c->shared_bytes = int32_t(shared);
  c->block_rows = kInputRows * kChainThreads / 32;
  return true;
}

void input_chain::launch(const ConvConfig& config, const ConvCall& call, cudaStream_t stream) {
  launch_chain(config, call, stream);
}

}  // namespace scn::cuda
