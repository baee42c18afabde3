// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution/tensor_launch.cuh"

namespace scn::cuda {

void launch_tensor_int8(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream) {
  launch_tensor<int8_t>(params, padded, limits, stream);
}

}  // namespace scn::cuda
