// SPDX-License-Identifier: Apache-2.0
// Memory that is taken once and used again, frame after frame.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace scn {

/// An array whose contents are undefined after each resize(): nothing is copied, nothing is cleared.
template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>, "contents are never constructed");

 public:
  void resize(int64_t size) {
    size_ = size;
    if (size <= capacity_) return;
    // a quarter more, so that frames of growing size do not take memory each time
    capacity_ = size + size / 4;
    data_.reset();
    data_.reset(new T[size_t(capacity_)]);
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
