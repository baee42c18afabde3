// SPDX-License-Identifier: Apache-2.0
// The CUDA backend as the rest of the engine sees it. Needs no CUDA headers; builds without CUDA link
// backend_none.cpp, whose functions say so.
#pragma once

#include <cstdint>
#include <memory>

#include "core/executor.h"
#include "core/memory_budget.h"
#include "plan/plan.h"
#include "scn_fx/engine.h"

namespace scn {

/// `limits`: of host memory, while the network is loaded.
std::unique_ptr<DeviceExecutor> make_cuda_executor(const Plan& plan, const CudaOptions& options,
                                                   const MemoryLimits& limits);

/// A copy in new device memory, made on `stream`; cuda_free releases it.
void* cuda_copy(int device, const void* data, int64_t bytes, void* stream);
void cuda_free(int device, void* data) noexcept;
/// What is enqueued on `later` from now on waits for what has been enqueued on `earlier`.
void cuda_order(int device, void* earlier, void* later);

}  // namespace scn
