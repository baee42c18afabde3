// SPDX-License-Identifier: Apache-2.0
#include "python/shared_pool.h"

#include <memory>
#include <new>

#include "core/error.h"
#include "core/fork.h"

namespace scn::python {
namespace {

struct HeldPool {
  explicit HeldPool(int threads) : asked(threads), pool(threads) {}
  const int asked;
  ThreadPool pool;
};

/// Outlives threads at exit on purpose.
struct Held {
  static Held& get() {
    static Held* const held = new Held;
    return *held;
  }

  /// Another thread of the parent may have held the lock. It left a whole pool: pointers change at once.
  void after_fork() noexcept { new (&mutex) std::mutex; }

  std::mutex mutex;
  std::unique_ptr<HeldPool> last;
  const ForkHandler fork{this};
};

}  // namespace

int checked_threads(int64_t threads, int64_t least) {
  if (threads < least || threads > kMostThreads) {
    fail(ErrorKind::kArgument, "threads must be ", least, " to ", kMostThreads,
         least ? ", got " : " (0 for all processors), got ", threads, ".");
  }
  return int(threads);
}

SharedPool::SharedPool(int64_t threads) {
  const int asked = checked_threads(threads, 0);
  Held& held = Held::get();
  lock_ = std::unique_lock<std::mutex>(held.mutex);
  if (!held.last || held.last->asked != asked) {
    held.last.reset();  // where the system allows few threads, the old ones make room
    held.last = std::make_unique<HeldPool>(asked);
  }
  pool_ = &held.last->pool;
}

void SharedPool::prepare() { Held::get(); }

}  // namespace scn::python
