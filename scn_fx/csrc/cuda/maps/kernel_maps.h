// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "cuda/views.h"

namespace scn::cuda {

/// Kernel maps of ranked sets (sites/geometry.h).
void build_maps(const std::vector<MapView>& maps, cudaStream_t stream);

}  // namespace scn::cuda
