// SPDX-License-Identifier: Apache-2.0
#include "core/parallel.h"

#include <algorithm>
#include <new>
#include <system_error>

#if defined(__linux__)
#include <sched.h>
#endif

#include "core/error.h"

namespace scn {
namespace {

int usable_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

/// Waits until `ready` for some tens of microseconds at most; returns whether it was.
template <typename Ready>
bool look_for(const Ready& ready) {
  for (int i = 0; i < 1000; ++i) {
    if (ready()) return true;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }
  return ready();
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  if (threads < 0)
    fail(ErrorKind::kArgument, "threads must be at least 1 (or 0 for all processors), got ", threads, ".");
  if (threads == 0) threads = usable_processors();
  scratch_.resize(size_t(threads));
  try {
    start();
  } catch (const std::system_error&) {
    const size_t started = workers_.size() + 1;
    stop();
    fail(ErrorKind::kArgument, "Only ", started, " of ", threads,
         " threads could be started: the system allows no more. Pass a smaller number as threads, or allow "
         "this process more (ulimit -u; of a container its limit of pids).");
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::start() {
  workers_.reserve(scratch_.size() - 1);
  while (workers_.size() + 1 < scratch_.size()) {
    workers_.emplace_back([this, thread = int(workers_.size()) + 1] { work(thread); });
  }
}

void ThreadPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::after_fork() noexcept {
  // Nothing is destroyed: a lock may be held and memory half changed by threads that are not here.
  new (&mutex_) std::mutex;
  new (&start_) std::condition_variable;
  new (&done_) std::condition_variable;
  new (&workers_) std::vector<std::thread>;
  new (&error_) std::exception_ptr;
  for (Buffer<CacheLine>& own : scratch_) new (&own) Buffer<CacheLine>;
  busy_ = 0;
  generation_ = 0;  // as new workers expect it
  sleepers_ = 0;
  caller_sleeps_ = false;
  forked_ = true;
}

void ThreadPool::for_each(int64_t items, int64_t grain, const LoopBody& body) {
  if (items <= 0) return;
  grain = std::max<int64_t>(1, grain);
  if (forked_) {
    forked_ = false;
    try {
      start();
    } catch (const std::system_error&) {
    }
  }
  if (workers_.empty() || items <= grain) {
    for (int64_t begin = 0; begin < items; begin += grain) body(begin, std::min(items, begin + grain), 0);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    body_ = &body;
    items_ = items;
    grain_ = grain;
    next_.store(0, std::memory_order_relaxed);
    error_ = nullptr;
    busy_ = int(workers_.size());
    ++generation_;
    if (sleepers_) start_.notify_all();
  }
  take_chunks(0);
  const auto finished = [this] { return busy_ == 0; };
  if (!look_for(finished)) {
    std::unique_lock<std::mutex> lock(mutex_);
    caller_sleeps_ = true;
    done_.wait(lock, finished);
    caller_sleeps_ = false;
  }
  if (error_) std::rethrow_exception(error_);
}

void ThreadPool::reserve_scratch(int64_t bytes) {
  for (Buffer<CacheLine>& own : scratch_) own.resize((bytes + 63) / 64);
}

int64_t ThreadPool::scratch_bytes() const {
  int64_t bytes = 0;
  for (const Buffer<CacheLine>& own : scratch_) bytes += own.bytes();
  return bytes;
}

void ThreadPool::take_chunks(int thread) {
  try {
    for (;;) {
      const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= items_) return;
      (*body_)(begin, std::min(items_, begin + grain_), thread);
    }
  } catch (...) {
    next_.store(items_, std::memory_order_relaxed);
    std::lock_guard<std::mutex> lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

void ThreadPool::work(int thread) {
  uint64_t seen = 0;
  const auto called = [&] { return stop_ || generation_ != seen; };
  for (;;) {
    if (!look_for(called)) {
      std::unique_lock<std::mutex> lock(mutex_);
      ++sleepers_;
      start_.wait(lock, called);
      --sleepers_;
    }
    if (stop_) return;
    seen = generation_;
    take_chunks(thread);
    if (--busy_ > 0) continue;
    std::lock_guard<std::mutex> lock(mutex_);
    if (caller_sleeps_) done_.notify_one();
  }
}

}  // namespace scn
