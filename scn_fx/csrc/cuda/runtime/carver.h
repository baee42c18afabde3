// SPDX-License-Identifier: Apache-2.0
// Arrays in one piece of memory that a caller has.
#pragma once

#include "core/sizes.h"

namespace scn::cuda {

/// Hands out arrays one after another, each for any kind of access. Without memory (null) it only counts the
/// bytes, so that what measures a layout and what uses it are the same code.
class Carver {
 public:
  explicit Carver(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <typename T>
  T* take(Size count) {
    T* const at = memory_ ? reinterpret_cast<T*>(memory_ + used_.value()) : nullptr;
    used_ += (count * sizeof(T)).rounded_up(kAlignment);
    return at;
  }
  Size used() const { return used_; }

 private:
  static constexpr int64_t kAlignment = 256;
  char* memory_;
  Size used_ = 0;
};

}  // namespace scn::cuda
