// SPDX-License-Identifier: Apache-2.0
// The threads of the single operators.
#pragma once

#include <cstdint>
#include <mutex>

#include "core/parallel.h"

namespace scn::python {

/// More threads than any machine can use, and fewer than a wrong number could ask for.
constexpr int64_t kMostThreads = 1024;

/// Throws kArgument for fewer than `least` threads, or more than kMostThreads.
int checked_threads(int64_t threads, int64_t least);

/// Borrows the one pool that all operators share, which serves one loop at a time: waits for other threads'
/// operators, so hold no other lock. A call that asks for another number of threads than the last one starts
/// them anew. In the child of a fork the first call does.
class SharedPool {
 public:
  /// 0: one thread per processor.
  explicit SharedPool(int64_t threads);
  ThreadPool& get() { return *pool_; }

  /// Makes what operators share, before there are threads that a fork could leave half way through that.
  static void prepare();

 private:
  std::unique_lock<std::mutex> lock_;
  ThreadPool* pool_;
};

}  // namespace scn::python
