// SPDX-License-Identifier: Apache-2.0
// A fixed set of worker threads that share out the chunks of one loop at a time. A frame is some sixty loops,
// one after another, many shorter than it takes to wake a thread: threads look for the next loop for a while
// before they sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/buffer.h"
#include "core/fork.h"

namespace scn {

/// The body of a loop, by reference: it must outlive the loop, and nothing takes memory for it.
class LoopBody {
 public:
  template <typename Body>
  LoopBody(const Body& body)
      : body_(&body), call_([](const void* object, int64_t begin, int64_t end, int thread) {
          (*static_cast<const Body*>(object))(begin, end, thread);
        }) {}
  void operator()(int64_t begin, int64_t end, int thread) const { call_(body_, begin, end, thread); }

 private:
  const void* body_;
  void (*call_)(const void*, int64_t, int64_t, int);
};

class ThreadPool {
 public:
  /// `threads` counts the calling thread; 0 means one per hardware thread that this process may use.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return int(scratch_.size()); }

  /// Calls body(begin, end, thread) for chunks of at most `grain` items that cover [0, items) once.
  /// Which thread takes which chunk is not fixed: bodies must not depend on it. The first exception
  /// that a body throws is thrown again here, after all threads have stopped. In the child of a fork, the
  /// first call starts threads of its own, or goes on with fewer where the system allows no more.
  void for_each(int64_t items, int64_t grain, const LoopBody& body);

  /// Makes room for `bytes` of scratch for every thread, before a loop. What was there is lost, the memory is
  /// kept for later loops: which thread takes which chunk must not decide when memory is taken.
  void reserve_scratch(int64_t bytes);
  /// Scratch of the thread that a body runs on, for this call of it; starts on a cache line.
  void* scratch(int thread) { return scratch_[size_t(thread)].data(); }
  int64_t scratch_bytes() const;

  /// The child of a fork has no workers, and what they left half done is left alone: see ForkHandler.
  void after_fork() noexcept;

 private:
  void start();
  void stop();
  void work(int thread);
  void take_chunks(int thread);

  struct alignas(64) CacheLine {
    char bytes[64];
  };

  std::vector<Buffer<CacheLine>> scratch_;  // by thread
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::atomic<uint64_t> generation_{0};  // of the loop at hand
  std::atomic<int> busy_{0};             // workers that have not finished it
  std::atomic<bool> stop_{false};
  // guarded by the mutex: who has to be woken
  int sleepers_ = 0;
  bool caller_sleeps_ = false;

  const LoopBody* body_ = nullptr;
  int64_t items_ = 0, grain_ = 1;
  std::atomic<int64_t> next_{0};
  std::exception_ptr error_;
  bool forked_ = false;  // and has not started its workers again
  const ForkHandler fork_{this};
};

}  // namespace scn
