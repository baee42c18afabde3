// SPDX-License-Identifier: Apache-2.0
// What launches depend on.
#pragma once

#include <cstdint>

namespace scn::cuda {

struct DeviceLimits {
  int32_t multiprocessors = 0;
  int32_t shared_bytes = 0;   // that one block may have
  int32_t architecture = 0;   // as 90
  bool early_launch = false;  // programmatic dependent launch
};

/// Of a device; asked once.
const DeviceLimits& device_limits(int device);
/// Of the current device.
const DeviceLimits& current_limits();

}  // namespace scn::cuda
