// SPDX-License-Identifier: Apache-2.0
#include "cuda/failure.h"

#include "core/error.h"
#include "core/failures.h"
#include "core/points.h"

namespace scn::cuda {
namespace {

void check_bounds(const Network& net, const std::vector<int32_t>& status) {
  for (const MapSpec& map : net.maps) {
    if (map.partner >= 0) continue;
    const int64_t found = status[size_t(kFound + map.output_set)];
    if (found <= map.bound) continue;
    fail_bound(found, map.bound, map.geometry.subm ? "sites" : "output sites", map.layer);
  }
}

}  // namespace

void throw_failure(const Plan& plan, int32_t capacity, const FailureHeader& header,
                   const std::vector<int32_t>& status) {
  const Network& net = plan.network;
  const auto entry = [&](int32_t i) { return status[size_t(i)]; };
  if (entry(kBadPoints)) fail_points_not_finite(entry(kBadPoints), entry(kFirstBadPoint));
  if (entry(kLargePoints)) fail_points_too_large(entry(kLargePoints), entry(kFirstLargePoint));
  if (entry(kNonFinite)) {
    fail(ErrorKind::kNonFinite, "The features hold ", entry(kNonFinite),
         " values that are NaN, infinite or beyond float16 (65504); the first in row ",
         entry(kFirstNonFinite), ". Clean the points before voxelising them.");
  }
  if (entry(kOutside)) {
    fail_outside(entry(kOutside), header.sites, header.outside, entry(kFirstOutside), header.batch,
                 net.sets[0].shape, "The input");
  }
  if (entry(kDuplicates)) fail_duplicate(header.duplicate, entry(kFirstDuplicate), "The input");
  check_bounds(net, status);
  if (entry(kFound) > capacity) {  // of points: a frame of voxels that are too many never comes here
    fail(ErrorKind::kBound, "The input: the points lie in ", entry(kFound),
         " voxels, but this engine was made for ", capacity,
         ". Pass max_voxels=", entry(kFound) + entry(kFound) / 4, " or more when making it.");
  }
  const int32_t first = kFound + int32_t(net.sets.size());
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    if (step.node < 0) continue;
    const int32_t before_add = entry(first + 2 * int32_t(i)), stored = entry(first + 2 * int32_t(i) + 1);
    if (before_add) fail_overflow(plan.name_of(step), before_add);
    if (stored) fail_overflow(plan.result_name_of(step), stored);
  }
  fail(ErrorKind::kArgument, "A frame failed on the device without saying why.");
}

}  // namespace scn::cuda
