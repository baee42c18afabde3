// SPDX-License-Identifier: Apache-2.0
#include "core/fork.h"

#include <memory>
#include <mutex>
#include <new>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace scn {

/// All handlers there are. Locked while the process is copied, so that no other thread is half way through a
/// change of it.
struct ForkList {
  std::mutex mutex;
  ForkHandler* first = nullptr;

  static ForkList& get() {
    static ForkList* const list = make();  // outlives every static object on purpose
    return *list;
  }

 private:
  static ForkList* make() {
    auto list = std::make_unique<ForkList>();  // first: handlers cannot be taken back
#if !defined(_WIN32)
    const int failed = pthread_atfork([] { get().mutex.lock(); }, [] { get().mutex.unlock(); }, in_child);
    if (failed) throw std::bad_alloc();
#endif
    return list.release();
  }

  static void in_child() {
    ForkList& list = get();
    new (&list.mutex) std::mutex;
    for (ForkHandler* at = list.first; at; at = at->next_) at->call_(at->object_);
  }
};

void ForkHandler::link() {
  ForkList& list = ForkList::get();
  const std::lock_guard<std::mutex> lock(list.mutex);
  next_ = list.first;
  if (next_) next_->before_ = this;
  list.first = this;
}

ForkHandler::~ForkHandler() {
  ForkList& list = ForkList::get();
  const std::lock_guard<std::mutex> lock(list.mutex);
  (before_ ? before_->next_ : list.first) = next_;
  if (next_) next_->before_ = before_;
}

}  // namespace scn
