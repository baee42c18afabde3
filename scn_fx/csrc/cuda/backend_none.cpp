// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA backend in builds without CUDA.
#include "core/error.h"
#include "cuda/backend.h"
#include "cuda/operators/operators.h"

namespace scn {
namespace {

constexpr const char* kMissing =
    "This build of scn-fx has no CUDA backend. Reinstall it with the CUDA toolkit at hand: SCN_FX_CUDA=on "
    "pip "
    "install .";

[[noreturn]] void missing() { fail(ErrorKind::kArgument, kMissing); }

}  // namespace

CudaInfo cuda_info() {
  CudaInfo info;
  info.problem = kMissing;
  return info;
}

std::unique_ptr<DeviceExecutor> make_cuda_executor(const Plan&, const CudaOptions&, const MemoryLimits&) {
  missing();
}
void* cuda_copy(int, const void*, int64_t, void*) { missing(); }
void cuda_free(int, void*) noexcept {}
void cuda_order(int, void*, void*) { missing(); }

Size cuda_map_scratch(const CudaMapCall&) { missing(); }
void cuda_subm_map(const CudaMapCall&, int32_t*) { missing(); }
int64_t cuda_output_sites(const CudaMapCall&) { missing(); }
void cuda_conv_map(const CudaMapCall&, int64_t, Site*, int32_t*) { missing(); }
void cuda_inverse_map(const CudaPlace&, const int32_t*, int64_t, int64_t, int64_t, const std::string&,
                      int32_t*, int32_t*) {
  missing();
}
CudaConvolutionSizes cuda_convolution_sizes(const CudaConvolutionCall&) { missing(); }
std::vector<double> cuda_convolve(const CudaConvolutionCall&, int32_t) { missing(); }
Convolved cuda_convolve(int, const ConvolutionCall&) { missing(); }
std::vector<std::string> cuda_convolution_kernels(int, const ConvolutionCall&) { missing(); }
void cuda_add(const CudaAddCall&) { missing(); }
void cuda_gather(const CudaPlace&, const float*, int64_t, int64_t, const int32_t*, int64_t, int64_t, float*) {
  missing();
}

}  // namespace scn
