// SPDX-License-Identifier: Apache-2.0
#include "frames.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>

#include "check.h"
#include "scn_fx/half.h"
#include "tally.h"

namespace fuzz {
namespace {

void point_at(Frame& frame, int32_t channels, bool half) {
  frame.view.features = half ? static_cast<const void*>(frame.halves.data()) : frame.floats.data();
  frame.view.half = half;
  frame.view.channels = channels;
  frame.view.sites = int64_t(frame.sites.size());
  frame.view.indices = frame.sites.data();
}

// Time follows from memory: what may take 16 MiB is done in seconds, under sanitizers too.
constexpr int64_t kMemory = int64_t(16) << 20;

/// What a frame gave: results, or the kind of an error.
struct Outcome {
  std::vector<scn::Result> results;
  std::optional<scn::ErrorKind> error;
  std::string message;
};

Outcome run(scn::Session& engine, const Frame& frame) {
  Outcome outcome;
  try {
    outcome.results = engine.run(frame.view);
    ++tally().frames;
  } catch (const scn::Error& error) {
    outcome.error = error.kind();
    outcome.message = error.what();
    ++tally().refused;
  }
  return outcome;
}

size_t bytes_of(const scn::Result& result) {
  int64_t count = 1;
  for (const int64_t d : result.dims)
    FUZZ_CHECK(d >= 0 && !__builtin_mul_overflow(count, d, &count), "a result has impossible dimensions");
  return size_t(count) * (result.half ? 2 : 4);
}

void compare(const Outcome& got, const Outcome& expected) {
  FUZZ_CHECK(got.error == expected.error, "'%s' on a used engine, '%s' on a fresh one", got.message.c_str(),
             expected.message.c_str());
  FUZZ_CHECK(got.results.size() == expected.results.size(), "%zu results", got.results.size());
  for (size_t i = 0; i < got.results.size(); ++i) {
    const scn::Result &a = got.results[i], &b = expected.results[i];
    FUZZ_CHECK(a.dims == b.dims && a.half == b.half && a.sparse == b.sparse, "the shape of result %zu", i);
    FUZZ_CHECK(!std::memcmp(a.data.get(), b.data.get(), bytes_of(a)), "the bits of result %zu", i);
    FUZZ_CHECK(a.sites.size() == b.sites.size() &&
                   (a.sites.empty() ||
                    !std::memcmp(a.sites.data(), b.sites.data(), a.sites.size() * sizeof(scn::Site))),
               "the sites of result %zu", i);
  }
}

}  // namespace

Frame good_frame(const scn::Network& network, Bytes& bytes) {
  const scn::Triple& grid = network.sets[0].shape;
  const int32_t channels = std::max(1, network.values[size_t(network.features)].channels);
  const int32_t batch = network.batch && !bytes.chance(10) ? std::min(network.batch, 3) : bytes.between(1, 3);
  const int64_t most = bytes.chance(6) ? 2600 : 40;
  Frame frame;
  double cells = batch;
  for (const int32_t n : grid) cells *= n;
  const int64_t range = cells < 1e18 ? int64_t(cells) : int64_t(1e18);
  // every `step`-th cell, modulo their number: distinct, and in an order of its own
  int64_t step = 1 + int64_t(bytes.word(bytes.chance(30) ? 6 : 1) % uint64_t(range));
  while (std::gcd(step, range) != 1) ++step;
  const int64_t count = std::min({range, int64_t(bytes.below(uint32_t(most) + 1)), most * 64 / channels + 1});
  unsigned __int128 cell = bytes.word(2) % uint64_t(range);
  for (int64_t i = 0; i < count; ++i) {
    uint64_t rest = uint64_t(cell);
    scn::Site site;
    site.x = int32_t(rest % uint64_t(grid[2]));
    rest /= uint64_t(grid[2]);
    site.y = int32_t(rest % uint64_t(grid[1]));
    rest /= uint64_t(grid[1]);
    site.z = int32_t(rest % uint64_t(grid[0]));
    site.batch = int32_t(rest / uint64_t(grid[0]));
    frame.sites.push_back(site);
    cell = (cell + uint64_t(step)) % uint64_t(range);
  }
  if (network.batch || bytes.chance(50)) frame.view.batch = batch;
  if (network.batch == batch && bytes.chance(50)) frame.view.batch = 0;
  uint32_t state = bytes.byte();
  const float size = bytes.chance(5) ? 60000.0f : 2.0f;
  for (int64_t i = 0; i < count * channels; ++i) {
    state = state * 1664525u + 1013904223u;
    frame.floats.push_back((float(state >> 16) / 32768.0f - 1.0f) * size);
    frame.halves.push_back(scn::float_to_half(frame.floats.back()));
  }
  point_at(frame, channels, bytes.chance(50));
  return frame;
}

Frame bad_frame(const scn::Network& network, Bytes& bytes) {
  Frame frame = good_frame(network, bytes);
  const size_t count = frame.sites.size();
  switch (bytes.below(8)) {
    case 0:
      if (count) {
        scn::Site& site = frame.sites[bytes.below(uint32_t(count))];
        int32_t* const axis[] = {&site.batch, &site.z, &site.y, &site.x};
        *bytes.pick(axis) = bytes.edge32(INT32_MIN);
      }
      break;
    case 1:
      if (count) {
        const scn::Site copy = bytes.pick(frame.sites);
        bytes.pick(frame.sites) = copy;
      }
      break;
    case 2:
      if (count) {
        const size_t at = bytes.below(uint32_t(frame.floats.size()));
        frame.floats[at] = bytes.edge_float();
        frame.halves[at] = scn::float_to_half(frame.floats[at]);
      }
      break;
    case 3:
      frame.view.channels = bytes.chance(50) ? frame.view.channels + 1 : bytes.edge32(INT32_MIN);
      break;
    case 4:
      frame.view.batch = bytes.edge32(INT32_MIN);
      break;
    case 5:
      frame.view.sites = -int64_t(bytes.below(3)) - 1;
      break;
    case 6:
      if (count) {
        frame.sites.back().batch = bytes.edge32(0);
        frame.view.batch = bytes.chance(50) ? 0 : frame.sites.back().batch;
      }
      break;
    default:
      frame.view = scn::FrameView{};
      frame.view.channels = network.values[size_t(network.features)].channels;
      frame.view.batch = bytes.between(0, 3);
  }
  return frame;
}

scn::EngineOptions random_options(Bytes& bytes) {
  scn::EngineOptions options;
  options.memory_limit = kMemory;
  const uint8_t kind = bytes.byte();
  options.float32 = (kind & 7) == 7;
  options.trace = (kind & 56) == 56;
  options.threads = (kind & 192) == 192 ? bytes.between(2, 3) : 1;
  if (bytes.chance(4))
    options.spatial_shape = {bytes.between(-1, 9), bytes.between(-1, 9), bytes.between(-1, 9)};
  if (bytes.chance(3)) bytes.pick(options.spatial_shape) = bytes.edge32(INT32_MIN);
  return options;
}

void run_file(const std::string& onnx, Bytes& bytes) {
  ++tally().inputs;
  const scn::EngineOptions options = random_options(bytes);
  try {
    const scn::OnnxModel model = scn::parse_model(onnx);
    ++tally().read;
    scn::Session engine(model, options);
    ++tally().loaded;
    const scn::Network& network = engine.plan().network;
    for (int frames = bytes.between(1, 5); frames > 0; --frames) {
      if (bytes.chance(40)) {
        run(engine, bad_frame(network, bytes));
        continue;
      }
      const Frame frame = good_frame(network, bytes);
      const Outcome used = run(engine, frame);
      scn::EngineOptions alone = options;
      alone.threads = 1;
      scn::Session fresh(model, alone);
      const Outcome expected = run(fresh, frame);
      // Each thread has sums of its own, which count against the limit.
      const bool memory = used.error == scn::ErrorKind::kMemory || expected.error == scn::ErrorKind::kMemory;
      if (memory && options.threads > 1) continue;
      compare(used, expected);
    }
    engine.buffer_bytes();
  } catch (const scn::Error& error) {
    // what the reader says, for people who look why few inputs pass
    static const bool verbose = std::getenv("SCN_FX_FUZZ_VERBOSE") != nullptr;
    if (verbose) std::fprintf(stderr, "refused: %s\n", error.what());
  }
}

}  // namespace fuzz
