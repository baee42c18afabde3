// SPDX-License-Identifier: Apache-2.0
// What the host knows of a frame before it is enqueued.
#pragma once

#include "cuda/device_plan.h"

namespace scn::cuda {

/// The batch of a frame of voxels; throws if the network or the device's memory cannot take it.
int32_t checked_batch(const DevicePlan& device, const FrameView& frame);

/// Results of so many batch entries; throws if that cannot be.
void take_batch(DevicePlan& device, int32_t batch);

}  // namespace scn::cuda
