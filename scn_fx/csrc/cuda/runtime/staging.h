// SPDX-License-Identifier: Apache-2.0
// Frames of callers that have no device memory, and results for them.
#pragma once

#include <cstdint>

namespace scn::cuda {

/// Copies device memory to the host after earlier work of `stream`; waits.
void copy_to_host(int device, void* host, const void* data, int64_t bytes, void* stream);

/// Frees device memory; nothing happens where the driver is gone already.
void free_on(int device, void* data) noexcept;

/// Device memory: grows, never shrinks.
class Staging {
 public:
  explicit Staging(int device) : device_(device) {}
  ~Staging();
  Staging(const Staging&) = delete;
  /// Device copy of `bytes` of host memory, valid until the next upload to the same slot (0 or 1). The host
  /// memory has been read when this returns.
  const void* upload(int slot, const void* host, int64_t bytes, void* stream);

 private:
  int device_;
  void* memory_[2] = {nullptr, nullptr};
  int64_t capacity_[2] = {0, 0};
};

}  // namespace scn::cuda
