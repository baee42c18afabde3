// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <thread>

namespace scn::python {

/// Lets other Python threads run while it lives. Unlike nanobind's, it can end in a daemon thread after the
/// interpreter has begun to exit: before Python 3.14, taking the lock back then ends the thread by unwinding
/// its stack, which aborts the process at the first function that may not throw. Such a thread stops here
/// instead, until the process is gone, as newer interpreters do.
class GilRelease {
 public:
  GilRelease() : state_(PyEval_SaveThread()) {}
  ~GilRelease() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace scn::python
