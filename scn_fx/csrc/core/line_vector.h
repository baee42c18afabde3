// SPDX-License-Identifier: Apache-2.0
// Vectors that begin on a cache line.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace scn {

/// Memory that begins on a cache line. A register of 64 bytes that is loaded from two lines takes two loads,
/// which kernels that load one for each product feel.
template <typename T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};

  LineAllocator() = default;
  template <typename U>
  LineAllocator(const LineAllocator<U>&) {}

  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), kLine)); }
  void deallocate(T* memory, size_t) noexcept { ::operator delete(memory, kLine); }

  template <typename U>
  bool operator==(const LineAllocator<U>&) const {
    return true;
  }
  template <typename U>
  bool operator!=(const LineAllocator<U>&) const {
    return false;
  }
};

template <typename T>
using LineVector = std::vector<T, LineAllocator<T>>;

}  // namespace scn
