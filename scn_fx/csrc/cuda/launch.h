// SPDX-License-Identifier: Apache-2.0
// What launches of large kernels share.
#pragma once

#include "cuda/convolution.h"

namespace scn::cuda {

/// Allows a kernel as much shared memory as a block can have, once per device. Throws if `bytes` is more than that.
void allow_shared(const void* kernel, int32_t bytes, const DeviceLimits& limits);

/// Blocks that a multiprocessor holds at a time, at least 1.
int32_t blocks_per_multiprocessor(const void* kernel, int32_t threads, int32_t shared_bytes);

}  // namespace scn::cuda
