// SPDX-License-Identifier: Apache-2.0
// Where the time of a frame goes, for those who ask.
#pragma once

#include <chrono>
#include <vector>

#include "scn_fx/result.h"

namespace scn {

/// Appends the time since the last stop to a list, if there is one.
class StageTimer {
 public:
  explicit StageTimer(std::vector<StageTime>* times) : times_(times), last_(Clock::now()) {}
  void stop(const char* kind, const char* name) {
    if (!times_) return;
    times_->push_back({kind, name, std::chrono::duration<double>(Clock::now() - last_).count(), 0, {}});
    last_ = Clock::now();
  }

  /// The stage stopped last; null where nobody asks.
  StageTime* last() { return times_ && !times_->empty() ? &times_->back() : nullptr; }

 private:
  using Clock = std::chrono::steady_clock;
  std::vector<StageTime>* times_;
  Clock::time_point last_;
};

}  // namespace scn
