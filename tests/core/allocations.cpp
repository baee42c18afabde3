// SPDX-License-Identifier: Apache-2.0
// Counts what a frame takes from the heap:
//
//   allocations scn.onnx sites batch channels depth height width threads
//
// runs the same frame of random sites five times and prints, for each, how often memory was taken.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <set>
#include <vector>

#include "engine/session.h"

namespace {

std::atomic<int> taken{0};

void* take(std::size_t size, std::size_t alignment) {
  ++taken;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size ? size : 1)) throw std::bad_alloc();
  return memory;
}

}  // namespace

// The other forms of new and delete call these.
void* operator new(std::size_t size) { return take(size, 16); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return take(size, std::size_t(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

int main(int argc, char** argv) {
  if (argc != 9) return 2;
  int32_t numbers[7];
  for (int i = 0; i < 7; ++i) numbers[i] = std::atoi(argv[i + 2]);
  const auto [count, batch, channels, depth, height, width, threads] = numbers;
  std::mt19937 random(1);
  std::set<int32_t> cells;
  while (int32_t(cells.size()) < count)
    cells.insert(int32_t(random() % uint32_t(batch * depth * height * width)));
  std::vector<scn::Site> sites;
  for (const int32_t cell : cells) {
    sites.push_back(
        {cell / width / height / depth, cell / width / height % depth, cell / width % height, cell % width});
  }
  std::vector<float> features(size_t(count) * size_t(channels));
  for (float& value : features) value = float(random() % 1000) / 1000;

  scn::EngineOptions options;
  options.threads = threads;
  scn::Session engine(scn::load_onnx(argv[1]), options);
  scn::FrameView frame;
  frame.features = features.data();
  frame.sites = count;
  frame.channels = channels;
  frame.indices = sites.data();
  frame.batch = batch;
  for (int i = 0; i < 5; ++i) {
    const int before = taken;
    const std::vector<scn::Result> results = engine.run(frame);
    std::printf("%d%c", taken - before, i < 4 ? ' ' : '\n');
  }
  return 0;
}
