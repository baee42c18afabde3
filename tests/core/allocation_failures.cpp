// SPDX-License-Identifier: Apache-2.0
// Fails every allocation in turn, and looks at what the engine does then:
//
//   allocation_failures THREADS scn.onnx|scn.plan...
//
// For each file: the n-th allocation of a load throws, for n = 1, 2, 3, ... until a load needs fewer. Then
// the same for frames, each on a new engine, so that its memory still has to grow: after the frame that
// failed, good frames of other sizes and the same one must have the bits of an engine that never saw a
// failure. Then once more on one engine, whose memory has grown. An error is an scn::Error or std::bad_alloc;
// nothing may be left behind. Prints how many allocations failed.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <optional>
#include <vector>

#include "engine/session.h"

namespace {

std::atomic<int64_t> countdown{-1};  // allocations until the one that fails; below zero: none does
std::atomic<int64_t> live{0};

void* take(std::size_t size, std::size_t alignment) {
  if (countdown.load() >= 0 && countdown.fetch_sub(1) == 0) throw std::bad_alloc();
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size ? size : 1)) throw std::bad_alloc();
  ++live;
  return memory;
}

void give_back(void* memory) {
  if (memory) --live;
  std::free(memory);
}

}  // namespace

// The other forms of new and delete call these.
void* operator new(std::size_t size) { return take(size, 16); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return take(size, std::size_t(alignment));
}
void operator delete(void* memory) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { give_back(memory); }

namespace {

int64_t failures = 0;

[[noreturn]] void wrong(const char* file, const char* what, int64_t n) {
  countdown = -1;
  std::fprintf(stderr, "%s: %s, when allocation %lld failed\n", file, what, (long long)n);
  std::exit(1);
}

struct Frame {
  std::vector<scn::Site> sites;
  std::vector<float> features;
  scn::FrameView view;
};

/// `count` distinct sites (fewer if the grid is smaller), not in order.
Frame make_frame(const scn::Network& network, int64_t count) {
  const scn::Triple& grid = network.sets[0].shape;
  const int32_t batch = network.batch ? network.batch : 2;
  const int64_t cells = int64_t(batch) * grid[0] * grid[1] * grid[2];
  // neighbours in most cases, in large grids too
  const int64_t range = std::min<int64_t>(cells, 4096);
  int64_t step = range / 3 + 1;
  while (std::gcd(step, range) != 1) ++step;
  Frame frame;
  for (int64_t i = 0; i < std::min(count, range); ++i) {
    const int64_t cell = i * step % range * (cells / range);
    frame.sites.push_back({int32_t(cell / grid[2] / grid[1] / grid[0]),
                           int32_t(cell / grid[2] / grid[1] % grid[0]), int32_t(cell / grid[2] % grid[1]),
                           int32_t(cell % grid[2])});
  }
  const int32_t channels = network.values[size_t(network.features)].channels;
  for (size_t i = 0; i < frame.sites.size() * size_t(channels); ++i)
    frame.features.push_back(float(i * 37 % 101) / 50 - 1);
  frame.view.features = frame.features.data();
  frame.view.sites = int64_t(frame.sites.size());
  frame.view.channels = channels;
  frame.view.indices = frame.sites.data();
  frame.view.batch = batch;
  return frame;
}

bool same(const std::vector<scn::Result>& a, const std::vector<scn::Result>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    int64_t bytes = a[i].half ? 2 : 4;
    for (const int64_t d : a[i].dims) bytes *= d;
    const size_t sites = a[i].sites.size() * sizeof(scn::Site);
    if (a[i].dims != b[i].dims || a[i].half != b[i].half || a[i].sites.size() != b[i].sites.size())
      return false;
    if (bytes && std::memcmp(a[i].data.get(), b[i].data.get(), size_t(bytes))) return false;
    if (sites && std::memcmp(a[i].sites.data(), b[i].sites.data(), sites)) return false;
  }
  return true;
}

/// Runs `body` with its n-th allocation failing. True if there was none that failed, so that it finished.
template <typename Body>
bool finishes(const char* file, int64_t n, const Body& body) {
  countdown = n - 1;
  bool finished = false;
  try {
    body();
    finished = true;
  } catch (const std::bad_alloc&) {
  } catch (const scn::Error&) {
  } catch (const std::exception& error) {
    wrong(file, error.what(), n);
  }
  const bool failed = countdown < 0;
  countdown = -1;
  failures += failed;
  if (!finished && !failed) wrong(file, "an error without a failure", n);
  return !failed;
}

void try_file(const char* file, int threads) {
  scn::EngineOptions options;
  options.threads = threads;
  {  // what the library takes once and keeps: lists of engines, choices of kernels
    const scn::OnnxModel model = scn::load_model(file);
    const scn::Session one(model, options), two(model, options);
  }
  for (int64_t n = 1;; ++n) {
    const int64_t before = live;
    const bool finished = finishes(file, n, [&] { scn::Session engine(scn::load_model(file), options); });
    if (live != before) wrong(file, "a load left memory behind", n);
    if (finished) break;
  }
  const scn::OnnxModel model = scn::load_model(file);
  std::vector<Frame> frames;
  std::vector<std::vector<scn::Result>> expected;
  {
    scn::Session engine(model, options);
    for (const int64_t count : {3, 2400, 0}) frames.push_back(make_frame(engine.plan().network, count));
  }
  for (const Frame& frame : frames) expected.push_back(scn::Session(model, options).run(frame.view));
  const auto good = [&](scn::Session& engine, size_t which, int64_t n) {
    if (!same(engine.run(frames[which].view), expected[which])) wrong(file, "a good frame has other bits", n);
    engine.buffer_bytes();
  };
  const size_t small = 0, big = 1, none = 2;
  for (const size_t failing : {small, big}) {
    for (int64_t n = 1;; ++n) {
      const int64_t before = live;
      bool finished = false;
      {
        scn::Session engine(model, options);
        if (n % 2) good(engine, failing == big ? small : none, n);  // memory to grow, or none yet
        finished = finishes(file, n, [&] { engine.run(frames[failing].view); });
        good(engine, failing == big ? small : big, n);
        good(engine, failing, n);
      }
      if (live != before) wrong(file, "an engine left memory behind", n);
      if (finished && n % 2 == 0) break;  // a new engine, the one with most to take
    }
  }
  scn::Session engine(model, options);
  for (const size_t failing : {small, big, none}) {
    for (int64_t n = 1;; ++n) {
      const bool finished = finishes(file, n, [&] { engine.run(frames[failing].view); });
      good(engine, size_t(n % 3), n);
      if (finished) break;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  for (int i = 2; i < argc; ++i) try_file(argv[i], std::atoi(argv[1]));
  std::printf("%lld allocations failed\n", (long long)failures);
  return 0;
}
