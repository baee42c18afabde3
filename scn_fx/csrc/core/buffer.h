// SPDX-License-Identifier: Apache-2.0
// Memory that is taken once and used again, frame after frame.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

#include "core/sizes.h"

namespace scn {

/// An array whose contents are undefined after each resize(): nothing is copied, nothing is cleared.
template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>, "contents are never constructed");

 public:
  /// Where memory ends, the buffer is empty and can be resized again.
  void resize(int64_t size) {
    if (size > capacity_) {
      data_.reset();
      size_ = capacity_ = 0;
      // a quarter more, so that frames of growing size do not take memory each time
      const int64_t capacity = (Size(size) + size / 4).value();
      data_.reset(new T[size_t(capacity)]);
      capacity_ = capacity;
    }
    size_ = size;
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  int64_t bytes() const { return capacity_ * int64_t(sizeof(T)); }

 private:
  std::unique_ptr<T[]> data_;
  int64_t size_ = 0, capacity_ = 0;
};

}  // namespace scn
