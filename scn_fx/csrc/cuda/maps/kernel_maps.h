// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "cuda/views.h"

namespace scn::cuda {

/// Kernel maps of ranked sets (sites/geometry.h). `beside`: the kernel before in the stream makes nothing
/// that maps read and lets others start when the sets are ranked: then maps are made beside it.
void build_maps(const std::vector<MapView>& maps, bool beside, cudaStream_t stream);

}  // namespace scn::cuda
