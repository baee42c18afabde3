// SPDX-License-Identifier: Apache-2.0
// What a frame of points must be, and what is said of those that are not, whoever found it.
#pragma once

#include <cstdint>

#include "scn_fx/points.h"

namespace scn {

/// Throws unless the view describes points of `channels` columns, as many as its scans have together.
void check_points(const PointsView& points, int32_t channels);

/// `count` points hold NaN or infinity; `first` is one of them.
[[noreturn]] void fail_points_not_finite(int64_t count, int64_t first);
/// `count` points inside the grid hold values beyond what sums are made of.
[[noreturn]] void fail_points_too_large(int64_t count, int64_t first);

}  // namespace scn
