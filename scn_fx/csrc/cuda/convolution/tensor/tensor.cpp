// SPDX-License-Identifier: Apache-2.0
// Which instance of the tensor-core convolution serves a layer, and how its shared memory is divided.
#include "cuda/convolution/tensor/tensor.h"

#include <algorithm>

#include "cuda/convolution/launch_config.h"
#include "cuda/convolution/tensor/kernels.h"

namespace scn::cuda::tensor {
namespace {

using FindKernel = const void* (*)(const TensorVariant& variant);

/// Takes a variant, if there is such an instance and its layout fits.
bool take(FindKernel find, const TensorVariant& v, const KOrder& order, const DeviceLimits& limits,
          ConvConfig* c) {
  const void* const symbol = find(v);
  if (!symbol) return false;
  const auto up = [](int64_t n) { return (n + 127) / 128 * 128; };
  const int32_t units = order.units(tensor_block(v.block, v.parts, v.finish));
  const int32_t entries = order.volume + tensor_spare(v.block, v.offsets, v.parts, v.finish);
  const int64_t weights = v.resident ? int64_t(units) * order.unit_bytes() * v.block : 0;
  const int64_t map_at = up(weights) + up(2 * v.block * 4), map = up(int64_t(entries) * (kWarpSites * 2 + 4));
  int32_t threads = tensor_threads(v.block);
  const auto total = [&] { return map_at + threads / 32 * map; };
  while (total() > limits.shared_bytes && threads > 32) threads -= 32;
  if (total() > limits.shared_bytes) return false;
  TensorLayout l{};
  l.scale_at = int32_t(up(weights));
  l.map_at = int32_t(map_at);
  l.map = int32_t(map);
  l.bases = entries * kWarpSites * 2;
  l.total = int32_t(total());
  c->symbol = symbol;
  c->finish = v.finish;
  c->block = v.block;
  c->unit_offsets = v.offsets;
  c->unit_bytes = order.unit_bytes();
  c->units = units;
  c->place = v.resident ? WeightPlace::kResident : WeightPlace::kCache;
  c->packed_bytes = (Size(c->padded) * units * order.unit_bytes()).value();
  c->threads = threads;
  c->shared_bytes = l.total;
  c->block_rows = threads / 32 * kWarpSites;
  c->set_layout(l);
  return true;
}

}  // namespace

bool suits(const ConvProblem& p, const DeviceLimits& limits, ConvConfig* config) {
  const KOrder order{p.offsets, p.in_bytes};
  TensorVariant v{};
  v.block = std::min(config->padded, kLargestBlock);
  v.offsets = unit_offsets(p.in_bytes);
  v.parts = unit_parts(p.in_bytes);
  // Weights that leave room for two blocks.
  const bool small = int64_t(order.units()) * order.unit_bytes() * v.block <= limits.shared_bytes / 4;
  const bool int8 = is_int8(p);
  for (const bool exact : {true, false}) {
    const FindKernel find =
        exact ? (int8 ? int8_kernel : half_kernel) : (int8 ? any_int8_kernel : any_half_kernel);
    v.finish = exact ? p.finish : FinishKind::kAny;
    for (const bool resident : {true, false}) {
      if (resident && !small) continue;
      v.resident = resident;
      if (take(find, v, order, limits, config)) return true;
    }
  }
  return false;
}

void launch(const ConvConfig& config, const ConvCall& call, cudaStream_t stream) {
  launch_tensor(config, call, config.layout<TensorLayout>(), stream);
}

}  // namespace scn::cuda::tensor
