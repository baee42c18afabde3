// SPDX-License-Identifier: Apache-2.0
#include "core/points.h"

#include "core/error.h"
#include "core/sizes.h"

namespace scn {

void check_points(const PointsView& points, int32_t channels) {
  if (channels < 3) {
    fail(
        ErrorKind::kSite, "The network reads ", channels,
        " features per site, so they are not the means of points, which have x, y and z. Voxelise them first "
        "and pass features and indices.");
  }
  if (points.columns != channels) {
    fail(ErrorKind::kSite, "The network reads ", channels, " features per site, the points have ",
         points.columns, " columns. Check which columns the model was trained on, x, y, z first.");
  }
  if (points.count < 0) fail(ErrorKind::kSite, "A frame has at least 0 points, got ", points.count, ".");
  if (points.batch < 1) {
    fail(ErrorKind::kArgument, "A frame of points has at least one scan, got ", points.batch,
         ". Pass a scan without points, [0, columns], where there are none.");
  }
  if (!points.entries) {
    if (points.batch == 1) return;
    fail(ErrorKind::kArgument, "A frame of ", points.batch,
         " scans says in `entries` how many points each has.");
  }
  Size all = 0;
  for (int32_t i = 0; i < points.batch; ++i) {
    if (points.entries[i] < 0)
      fail(ErrorKind::kSite, "A scan has at least 0 points, got ", points.entries[i], " in scan ", i, ".");
    all += points.entries[i];
  }
  if (all != Size(points.count)) {
    fail(ErrorKind::kSite, "The scans have ", all.text(), " points together, but the frame has ",
         points.count, ".");
  }
}

void fail_points_not_finite(int64_t count, int64_t first) {
  fail(ErrorKind::kNonFinite, "Points must be finite, but ", count,
       " hold NaN or infinity, the first is point ", first,
       ". Remove them, as points[np.isfinite(points).all(axis=1)] does, and check that they were read in the "
       "right format.");
}

void fail_points_too_large(int64_t count, int64_t first) {
  fail(ErrorKind::kArgument, "Means are made of values smaller than 2^31, but ", count,
       " points inside the grid hold larger ones, the first is point ", first,
       ". Scale that column, or leave it out: absolute times, say, should be seconds before the newest "
       "sweep.");
}

}  // namespace scn
