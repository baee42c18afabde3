// SPDX-License-Identifier: Apache-2.0
// Launching by a config.
#pragma once

#include "cuda/convolution/convolution.h"
#include "cuda/convolution/tensor_params.h"
#include "cuda/runtime/launch.h"

namespace scn::cuda {

/// `arguments`: addresses of the kernel's parameters.
inline void launch_config(const ConvConfig& c, void** arguments, cudaStream_t stream) {
  launch_symbol(c.symbol, dim3(uint32_t(c.blocks), uint32_t(c.column_blocks())), c.threads, c.shared_bytes,
                c.early, stream, arguments, c.cluster);
}

/// A kernel of (TensorParams, Layout).
template <typename Layout>
void launch_tensor(const ConvConfig& c, const ConvCall& call, Layout layout, cudaStream_t stream) {
  TensorParams p{};
  p.map = call.map;
  p.x = static_cast<const char*>(call.x);
  p.x_stride = c.problem.in_bytes;
  p.after_maps = call.after_maps;
  p.units = c.units;
  p.weights = reinterpret_cast<const uint4*>(call.weights.packed);
  p.finish = call.finish;
  void* arguments[] = {&p, &layout};
  launch_config(c, arguments, stream);
}

}  // namespace scn::cuda
