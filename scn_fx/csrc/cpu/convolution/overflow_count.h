// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "cpu/kernels/kernels.h"

namespace scn {

/// Sums the counts of all threads.
class OverflowCount {
 public:
  void add(const Overflow& o) {
    before_add_ += o.before_add;
    stored_ += o.stored;
  }
  Overflow total() const { return {before_add_, stored_}; }

 private:
  std::atomic<int64_t> before_add_{0}, stored_{0};
};

}  // namespace scn
