// SPDX-License-Identifier: Apache-2.0
// Memory is counted before it is taken: a small file or frame can ask for any amount.
#pragma once

#include <cstdint>
#include <string>

#include "core/sizes.h"

namespace scn {

/// Half of what this process may use: of the machine's memory, its control group's or its own limit. Asks the
/// system.
int64_t default_memory_limit();

/// What an engine may take: for loading a file, and for weights and a frame together.
struct MemoryLimits {
  int64_t load, all;

  /// `limit` where a caller gives one. Otherwise default_memory_limit(), and for loading no more than a file
  /// of `file_bytes` can need, however it is padded: small files that name one weight a thousand times could
  /// take any amount.
  static MemoryLimits of(int64_t limit, size_t file_bytes);
};

/// Counts what is about to be taken and throws kMemory beyond a limit.
class MemoryBudget {
 public:
  /// `limit` in bytes; 0: default_memory_limit().
  explicit MemoryBudget(int64_t limit);
  /// Of one call of an operator, whose caller can pass no limit.
  static MemoryBudget of_operator();

  /// Counts `bytes` for `what`, as "its kernel map", of `layer`.
  void take(Size bytes, const std::string& layer, const char* what);
  /// What has been counted so far, and going back to it.
  Size taken() const { return taken_; }
  void go_back(Size taken) { taken_ = taken; }
  /// `bytes` that were counted are free again.
  void release(Size bytes) { taken_ = Size(taken_.value() - bytes.value()); }

 private:
  int64_t limit_;
  bool of_engine_ = true;
  Size taken_ = 0;
};

}  // namespace scn
