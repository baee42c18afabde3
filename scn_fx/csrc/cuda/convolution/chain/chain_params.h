// SPDX-License-Identifier: Apache-2.0
// What host and device know of the chains' kernels.
#pragma once

#include "cuda/convolution/finish.h"
#include "cuda/views.h"

namespace scn::cuda {

constexpr int32_t kChainThreads = 128;
/// Output channels that a block takes at a time, and, of the kernel for input layers, rows of a warp.
constexpr int32_t kInputColumns = 16, kInputRows = 32;

struct ChainParams {
  MapView map;
  const char* x;
  int32_t x_stride, in_channels, padded;
  const float* weights;  // [offset, in channel, padded]
  FinishView finish;
};

namespace chain {
/// The instance that reads rows of float32 or float16.
const void* kernel(ElementType rows);
}  // namespace chain

namespace input_chain {
/// The instance for 4, 5 or 8 input channels.
const void* kernel(int32_t channels);
}  // namespace input_chain

}  // namespace scn::cuda
