// SPDX-License-Identifier: Apache-2.0
// Copies of what a frame made, for callers without device memory.
#pragma once

#include <vector>

#include "cuda/points/points.h"
#include "scn_fx/points.h"
#include "scn_fx/result.h"

namespace scn::cuda {

/// Results of a frame that has ended.
std::vector<Result> fetch_results(int device, const std::vector<DeviceResult>& results, cudaStream_t stream);

/// The voxels of points that have been averaged.
Voxels fetch_voxels(int device, const SitesView& set, const PointArrays& arrays, int32_t columns,
                    cudaStream_t stream);

}  // namespace scn::cuda
