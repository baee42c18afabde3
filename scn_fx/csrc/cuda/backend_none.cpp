// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA backend in builds without CUDA.
#include "cuda/backend.h"
#include "error.h"

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

std::unique_ptr<CudaExecutor> make_cuda_executor(const Plan&, const CudaOptions&) { missing(); }
void cuda_to_host(int, void*, const void*, int64_t, void*) { missing(); }
void* cuda_copy(int, const void*, int64_t, void*) { missing(); }
void cuda_free(int, void*) noexcept {}
void cuda_order(int, void*, void*) { missing(); }
CudaStaging::~CudaStaging() = default;
const void* CudaStaging::upload(int, const void*, int64_t, void*) { missing(); }

}  // namespace scn
