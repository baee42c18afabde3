// SPDX-License-Identifier: Apache-2.0
// Memory on the device and page-locked memory on the host, owned by objects.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/sizes.h"
#include "cuda/runtime/check.h"

namespace scn::cuda {

template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(int64_t count) : count_(count) {
    const Size bytes = Size(count) * sizeof(T);
    if (count > 0) check(cudaMalloc(reinterpret_cast<void**>(&data_), bytes.count()), "allocating memory");
  }
  DeviceArray(DeviceArray&& other) noexcept { swap(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceArray() {
    if (data_) cudaFree(data_);
  }

  T* data() const { return data_; }
  int64_t size() const { return count_; }
  int64_t bytes() const { return count_ * int64_t(sizeof(T)); }
  void zero() {
    if (count_) check(cudaMemset(data_, 0, size_t(bytes())), "clearing memory");
  }

 private:
  void swap(DeviceArray& other) {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  T* data_ = nullptr;
  int64_t count_ = 0;
};

template <typename T>
DeviceArray<T> to_device(const std::vector<T>& values) {
  DeviceArray<T> array{int64_t(values.size())};
  if (!values.empty()) {
    check(cudaMemcpy(array.data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
          "copying to the device");
  }
  return array;
}

/// Host memory that kernels write directly; the same address serves both sides.
template <typename T>
class MappedArray {
 public:
  MappedArray() = default;
  explicit MappedArray(int64_t count) {
    check(cudaHostAlloc(reinterpret_cast<void**>(&data_), (Size(count) * sizeof(T)).count(),
                        cudaHostAllocMapped | cudaHostAllocPortable),
          "allocating page-locked memory");
    for (int64_t i = 0; i < count; ++i) data_[i] = T{};
  }
  MappedArray(MappedArray&& other) noexcept { std::swap(data_, other.data_); }
  MappedArray& operator=(MappedArray&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~MappedArray() {
    if (data_) cudaFreeHost(data_);
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
};

}  // namespace scn::cuda
