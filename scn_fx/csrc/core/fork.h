// SPDX-License-Identifier: Apache-2.0
// What has to know that the process was copied by fork(): only the thread that called it goes on in the copy.
// Others may have held a lock, or have been half way through a change.
#pragma once

namespace scn {

/// Calls object->after_fork() in a child process, before fork() returns there: no other thread exists, and no
/// memory should be taken. A last member, so that the object is whole while it can be called.
class ForkHandler {
 public:
  template <typename T>
  explicit ForkHandler(T* object)
      : object_(object), call_([](void* p) noexcept { static_cast<T*>(p)->after_fork(); }) {
    link();
  }
  ~ForkHandler();
  ForkHandler(const ForkHandler&) = delete;
  ForkHandler& operator=(const ForkHandler&) = delete;

 private:
  friend struct ForkList;
  void link();

  void* object_;
  void (*call_)(void*) noexcept;
  ForkHandler *before_ = nullptr, *next_ = nullptr;
};

}  // namespace scn
