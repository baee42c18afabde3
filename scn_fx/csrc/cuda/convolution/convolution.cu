// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution/chain_convolution.cuh"
#include "cuda/convolution/convolution.h"
#include "cuda/convolution/tensor_params.h"

namespace scn::cuda {
void convolve(const MapView& map, const void* x, const WeightsView& w, FinishView finish, bool after_maps,
              const DeviceLimits& limits, cudaStream_t stream) {
  finish.scale = w.scale;
  finish.bias = w.bias;
  if (w.product == Product::kChainHalf || w.product == Product::kChainFloat) {
    return launch_chain(map, x, w, finish, limits, stream);
  }
  TensorParams p{};
  p.map = map;
  p.x = static_cast<const char*>(x);
  p.x_stride = w.in_bytes;
  p.units = w.units;
  p.after_maps = after_maps;
  p.weights = reinterpret_cast<const uint4*>(w.packed);
  p.finish = finish;
  const bool int8 = w.product == Product::kTensorInt8;
  const auto launch = w.hopper ? (int8 ? launch_hopper_int8 : launch_hopper_half)
                               : (int8 ? launch_tensor_int8 : launch_tensor_half);
  launch(p, w.padded, limits, stream);
}

}  // namespace scn::cuda
