// SPDX-License-Identifier: Apache-2.0
// Frames from many threads, for ThreadSanitizer:
//
//   many_threads ROUNDS scn.onnx...
//
// Engines of one to four threads; some callers share one, each has one of its own, and one asks for the
// memory in use while frames run. Results have the bits that a single caller gets.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bytes.h"
#include "check.h"
#include "frames.h"

namespace {

constexpr int kCallers = 4, kFrames = 3;

size_t bytes_of(const scn::Result& result) {
  int64_t bytes = result.half ? 2 : 4;
  for (const int64_t d : result.dims) bytes *= d;
  return size_t(bytes);
}

/// Results as text to compare; the message of an error.
std::string bits(scn::Session& engine, const fuzz::Frame& frame) {
  std::string out;
  try {
    for (const scn::Result& result : engine.run(frame.view)) {
      out.append(result.data.get(), bytes_of(result));
      out.append(reinterpret_cast<const char*>(result.sites.data()), result.sites.size() * sizeof(scn::Site));
    }
  } catch (const scn::Error& error) {
    out = error.what();
  }
  return out;
}

void stress(const char* file, int rounds) {
  const scn::OnnxModel model = scn::load_onnx(file);
  scn::EngineOptions options;
  options.threads = 1;
  scn::Session alone(model, options);
  std::vector<fuzz::Frame> frames;
  std::vector<std::string> expected;
  for (uint8_t i = 0; i < kFrames; ++i) {
    // the first byte but one decides whether a frame has thousands of sites, more than one chunk
    const uint8_t choices[] = {0, uint8_t(i ? 255 : 0), i, 250, 9, i, 1, 0, 200, 100, i, 3, 77, 5};
    fuzz::Bytes bytes(choices, sizeof(choices));
    frames.push_back(fuzz::good_frame(alone.plan().network, bytes));
    expected.push_back(bits(alone, frames.back()));
  }
  options.threads = 3;
  scn::Session shared(model, options);
  std::atomic<bool> over{false};
  std::thread watcher([&] {
    while (!over) {
      const scn::BufferBytes held = shared.buffer_bytes();
      FUZZ_CHECK(held.weights > 0 && held.sites >= 0, "the memory in use");
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&, caller] {
      scn::EngineOptions own_options;
      own_options.threads = 1 + caller;
      for (int round = 0; round < rounds; ++round) {
        scn::Session own(model, own_options);
        for (size_t i = 0; i < frames.size(); ++i) {
          FUZZ_CHECK(bits(shared, frames[i]) == expected[i], "%s: a shared engine, frame %zu", file, i);
          FUZZ_CHECK(bits(own, frames[i]) == expected[i], "%s: %d threads, frame %zu", file, caller + 1, i);
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  over = true;
  watcher.join();
  std::printf("%s: %d frames\n", file, rounds * kCallers * kFrames * 2);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  for (int i = 2; i < argc; ++i) stress(argv[i], std::atoi(argv[1]));
  return 0;
}
