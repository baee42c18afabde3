// SPDX-License-Identifier: Apache-2.0
// From the status of a frame in error to the exception that says what was wrong.
#pragma once

#include <vector>

#include "cuda/rows/rows.h"
#include "plan/plan.h"

namespace scn::cuda {

/// Throws what the CPU backend would throw for this frame. `status` are the frame's entries (see
/// StatusEntry), `capacity`: sites of the input that there is room for.
[[noreturn]] void throw_failure(const Plan& plan, int32_t capacity, const FailureHeader& header,
                                const std::vector<int32_t>& status);

}  // namespace scn::cuda
