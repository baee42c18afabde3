// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution/hopper_launch.cuh"

namespace scn::cuda {

void launch_hopper_int8(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream) {
  launch_hopper<int8_t>(params, padded, limits, stream);
}

}  // namespace scn::cuda
