// SPDX-License-Identifier: Apache-2.0
// Sites on the device: ordered output sites of all levels, without the host.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "cuda/views.h"

namespace scn::cuda {

/// One strided or transposed convolution that makes a new set of sites out of another. Several may add to one
/// set.
struct Growth {
  int32_t from, to;       // sets
  GeometryView geometry;  // as of MapView: from the output's side
};

/// Step 1, one small kernel: *frame = value, status entries and far counts (one per map) as at the start of a
/// frame.
void begin_frame(DeviceFrame* frame, const DeviceFrame& value, int32_t* status, int32_t status_entries,
                 int32_t* far_counts, int32_t maps, cudaStream_t stream);

/// Step 2: checks the caller's indices and marks their cells in set 0. Needs words and line_counts that are
/// zero.
void mark_input(const DeviceFrame* frame, const SitesView& input, int32_t* status, cudaStream_t stream);

/// Step 3: ranks, ascending sites and counts of some sets whose cells are marked. line_counts are zero
/// again.
void rank_sites(const std::vector<SitesView>& sets, int32_t* status, cudaStream_t stream);

/// Step 4: marks the cells of every set that follows from set 0, which is ranked. Needs what mark_input
/// needs; then step 3 for those sets. All of it can run beside the layers on set 0.
void mark_outputs(const std::vector<SitesView>& sets, const std::vector<Growth>& growths,
                  cudaStream_t stream);

/// Step 5, see cuda/maps/kernel_maps.h.

/// Last step: words of some sets are zero again.
void clear_sites(const std::vector<SitesView>& sets, const int32_t* status, cudaStream_t stream);

}  // namespace scn::cuda
