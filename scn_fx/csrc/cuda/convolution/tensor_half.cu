// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution/tensor_launch.cuh"

namespace scn::cuda {

void launch_tensor_half(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream) {
  launch_tensor<__half>(params, padded, limits, stream);
}

}  // namespace scn::cuda
