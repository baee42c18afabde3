// SPDX-License-Identifier: Apache-2.0
// What frames of points need on a device beside a plan: taken with the first of them.
#pragma once

#include "cuda/points/points.h"
#include "cuda/runtime/memory.h"

namespace scn::cuda {

class PointMemory {
 public:
  /// For `points` points of `columns` columns in up to `sites` voxels.
  PointMemory(int64_t points, int64_t sites, int32_t columns);

  const PointArrays& arrays() const { return arrays_; }
  /// Points as the device has them; throws for those that it has no room for, or that it cannot read.
  PointFrame frame_of(const PointsView& points, const PointCells& cells) const;
  int64_t bytes() const;

 private:
  DeviceArray<PointFrame> frame_;
  DeviceArray<PointTotals> totals_;
  DeviceArray<PointPlace> places_;
  DeviceArray<int32_t> listed_, counts_, starts_, crowded_;
  DeviceArray<uint16_t> means_;
  PointArrays arrays_{};
};

}  // namespace scn::cuda
