// SPDX-License-Identifier: Apache-2.0
// Frames of points: the voxels' sites are indexed once, in ascending order, as the steps want them.
#include <cstring>
#include <numeric>

#include "cpu/executor.h"
#include "scn_fx/half.h"

namespace scn {

FrameView CpuExecutor::average(const PointsView& points, const PointCells& cells) {
  begin_frame();
  FrameMemory& memory = *held_;
  SiteSet& set = memory.sets[0];
  const PointRows rows{points.points,  points.half ? PointType::kFloat16 : PointType::kFloat32,
                       points.count,   points.columns,
                       points.entries, points.batch};
  average_points(rows, cells, plan_.network.sets[0].shape, pool_, budget_, &set, &memory.points);
  memory.batch = points.batch;
  memory.order.resize(set.sites.size());
  std::iota(memory.order.begin(), memory.order.end(), 0);
  FrameView frame;
  frame.features = memory.points.means.data();
  frame.sites = set.size();
  frame.channels = points.columns;
  frame.indices = set.sites.data();
  frame.batch = points.batch;
  return frame;
}

std::vector<Result> CpuExecutor::run_points(const PointsView& points, const PointCells& cells,
                                            std::vector<StageTime>* times) {
  StageTimer watch(times);
  const FrameView frame = average(points, cells);
  watch.stop("voxels", "input");
  return run_steps(frame, watch);
}

Voxels CpuExecutor::voxelize(const PointsView& points, const PointCells& cells) {
  const FrameView frame = average(points, cells);
  const PointMeans& made = held_->points;
  Voxels out;
  out.count = frame.sites;
  out.channels = frame.channels;
  out.sites.assign(frame.indices, frame.indices + frame.sites);
  const size_t values = (Size(frame.sites) * frame.channels).count();
  out.features.reset(new uint16_t[values]);
  const float* const means = made.means.data();
  for (size_t i = 0; i < values; ++i) out.features[i] = float_to_half(means[i]);
  out.dropped = made.dropped;
  out.surplus = made.surplus;
  return out;
}

}  // namespace scn
