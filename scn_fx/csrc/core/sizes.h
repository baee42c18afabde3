// SPDX-License-Identifier: Apache-2.0
// Arithmetic on numbers that come from files and callers: nothing wraps, nothing is truncated. A test looks
// through the sources for sizes that are put together otherwise.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/types.h"

namespace scn {

/// A number of elements or bytes. Negative numbers, and sums and products beyond 63 bits, become "too large"
/// and stay so: larger than any limit that a size is compared with, and without a value.
class Size {
 public:
  constexpr Size(int64_t number) : number_(number < 0 ? kTooLarge : number) {}
  constexpr Size(int32_t number) : Size(int64_t(number)) {}
  constexpr Size(size_t number) : Size(number > size_t(kTooLarge) ? int64_t(-1) : int64_t(number)) {}

  /// What `dims` hold in all; 1 for none.
  static Size of(const std::vector<int64_t>& dims) {
    Size all = 1;
    for (const int64_t n : dims) all *= n;
    return all;
  }
  static Size of(const Triple& shape) { return Size(shape[0]) * shape[1] * shape[2]; }

  Size& operator*=(Size other) {
    int64_t product;
    const bool lost =
        too_large() || other.too_large() || __builtin_mul_overflow(number_, other.number_, &product);
    number_ = lost ? kTooLarge : product;
    return *this;
  }
  Size& operator+=(Size other) {
    number_ = number_ > kTooLarge - other.number_ ? kTooLarge : number_ + other.number_;
    return *this;
  }
  friend Size operator*(Size a, Size b) { return a *= b; }
  friend Size operator+(Size a, Size b) { return a += b; }
  /// The next multiple of `step`.
  Size rounded_up(int64_t step) const {
    const Size more = *this + (step - 1);
    return more.too_large() ? more : Size(more.number_ / step * step);
  }

  friend bool operator>(Size a, Size b) { return a.number_ > b.number_; }
  friend bool operator<=(Size a, Size b) { return a.number_ <= b.number_; }
  friend bool operator==(Size a, Size b) { return a.number_ == b.number_; }
  friend bool operator!=(Size a, Size b) { return a.number_ != b.number_; }

  bool too_large() const { return number_ == kTooLarge; }
  /// The number. Throws kMemory if it is too large: nobody has that much memory.
  int64_t value() const {
    if (too_large()) fail(ErrorKind::kMemory, "A size is more than 63 bits can number.");
    return number_;
  }
  size_t count() const { return size_t(value()); }

  /// For messages.
  std::string text() const { return too_large() ? "more than 2^63" : std::to_string(number_); }

 private:
  static constexpr int64_t kTooLarge = std::numeric_limits<int64_t>::max();
  int64_t number_;
};

/// A number of 32 bits; throws kArgument with `what`, as "batch_size", for others.
inline int32_t narrow(int64_t number, const char* what) {
  if (number < std::numeric_limits<int32_t>::min() || number > std::numeric_limits<int32_t>::max())
    fail(ErrorKind::kArgument, what, " is ", number, ", which does not fit in 32 bits.");
  return int32_t(number);
}

}  // namespace scn
