// SPDX-License-Identifier: Apache-2.0
// Streams and events, owned by objects.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/stage_timer.h"
#include "cuda/runtime/check.h"

namespace scn::cuda {

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(unsigned flags = cudaEventDisableTiming) {
    check(cudaEventCreateWithFlags(&event_, flags), "creating an event");
  }
  ~Event() {
    if (event_) cudaEventDestroy(event_);
  }
  Event(Event&& other) noexcept { std::swap(event_, other.event_); }
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

inline void wait_for(cudaStream_t later, cudaStream_t earlier, cudaEvent_t event) {
  check(cudaEventRecord(event, earlier), "recording an event");
  check(cudaStreamWaitEvent(later, event, 0), "waiting for an event");
}

/// Times of the stages of one frame.
class Stages {
 public:
  Stages() { events_.emplace_back(cudaEventDefault); }
  void stop(const char* kind, const std::string& name, const std::string& kernel, cudaStream_t stream) {
    if (names_.empty() && !started_) {
      check(cudaEventRecord(events_[0], stream), "recording an event");
      started_ = true;
      return;
    }
    events_.emplace_back(cudaEventDefault);
    check(cudaEventRecord(events_.back(), stream), "recording an event");
    names_.push_back({kind, name, 0.0, 0, kernel});
  }
  std::vector<StageTime> times() {
    for (size_t i = 0; i < names_.size(); ++i) {
      float milliseconds = 0.0f;
      check(cudaEventElapsedTime(&milliseconds, events_[i], events_[i + 1]), "reading a time");
      names_[i].seconds = double(milliseconds) * 1e-3;
    }
    return names_;
  }

 private:
  std::vector<Event> events_;
  std::vector<StageTime> names_;
  bool started_ = false;
};

}  // namespace scn::cuda
