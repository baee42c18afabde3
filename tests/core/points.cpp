// SPDX-License-Identifier: Apache-2.0
// Runs points through the public interface:
//
//   points network.onnx points.bin COLUMNS COUNT...
//
// points.bin: float32 [sum of COUNT, COLUMNS], scans of COUNT points each. The file records its grid. Prints
// the voxels (how many, points outside, surplus points), hashes of their features and sites, and one of each
// result.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <numeric>
#include <vector>

#include "scn_fx/engine.h"
#include "scn_fx/half.h"

namespace {

uint64_t fnv1a(const void* data, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3u;
  return hash;
}

uint64_t fnv1a(const std::vector<scn::Result>& results) {
  uint64_t hash = 0;
  for (const scn::Result& result : results) {
    size_t bytes = result.half ? 2 : 4;
    for (const int64_t d : result.dims) bytes *= size_t(d);
    hash ^=
        fnv1a(result.data.get(), bytes) ^ fnv1a(result.sites.data(), result.sites.size() * sizeof(scn::Site));
  }
  return hash;
}

int run(int count, char** arguments) {
  std::ifstream file(arguments[2], std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::vector<int64_t> entries;
  for (int i = 4; i < count; ++i) entries.push_back(std::atoll(arguments[i]));
  scn::PointsView points;
  points.points = bytes.data();
  points.columns = std::atoi(arguments[3]);
  points.entries = entries.data();
  points.batch = int32_t(entries.size());
  points.count = std::accumulate(entries.begin(), entries.end(), int64_t(0));
  if (int64_t(bytes.size()) != points.count * points.columns * 4) return 2;

  scn::Engine engine(arguments[1]);
  const scn::Voxels voxels = engine.voxelize(points);
  std::printf("%" PRId64 " voxels, %" PRId64 " outside, %" PRId64 " surplus\n", voxels.count, voxels.dropped,
              voxels.surplus);
  std::printf("%016" PRIx64 " %016" PRIx64 "\n",
              fnv1a(voxels.features.get(), size_t(voxels.count) * size_t(voxels.channels) * 2),
              fnv1a(voxels.sites.data(), voxels.sites.size() * sizeof(scn::Site)));
  std::vector<scn::StageTime> times;
  const uint64_t hash = fnv1a(engine.run_points(points, &times));
  std::printf("%016" PRIx64 " after %s\n", hash, times.front().kind.c_str());

  // The voxels run by themselves, and a grid that the program gives, have the same bits.
  scn::FrameView frame;
  frame.features = voxels.features.get();
  frame.half = true;
  frame.sites = voxels.count;
  frame.channels = voxels.channels;
  frame.indices = voxels.sites.data();
  frame.batch = points.batch;
  if (fnv1a(engine.run(frame)) != hash) return 3;
  scn::EngineOptions options;
  options.grid = engine.grid();
  scn::Engine told(arguments[1], options);
  if (fnv1a(told.run_points(points)) != hash) return 4;
  // One scan needs no `entries`, and float16 points are what their float32 values are.
  scn::PointsView one = points;
  one.entries = nullptr;
  one.batch = 1;
  std::vector<uint16_t> halves;
  std::vector<float> rounded;
  for (int64_t i = 0; i < points.count * points.columns; ++i) {
    halves.push_back(scn::float_to_half(static_cast<const float*>(points.points)[i]));
    rounded.push_back(scn::half_to_float(halves.back()));
  }
  one.points = rounded.data();
  const uint64_t as_float = fnv1a(engine.run_points(one));
  one.points = halves.data();
  one.half = true;
  if (fnv1a(engine.run_points(one)) != as_float) return 5;
  // What is wrong is refused, and the engine goes on.
  for (int kind = 0; kind < 4; ++kind) {
    scn::PointsView wrong = points;
    if (kind == 0) ++wrong.columns;
    if (kind == 1) wrong.batch = 0;
    if (kind == 2) --wrong.count;
    if (kind == 3) wrong.entries = nullptr, wrong.batch = 2;
    try {
      engine.run_points(wrong);
      return 6;
    } catch (const scn::Error& error) {
      if (error.kind() != (kind % 2 ? scn::ErrorKind::kArgument : scn::ErrorKind::kSite)) return 7;
    }
  }
  options.grid->voxel_size[0] *= 2;
  try {
    scn::Engine elsewhere(arguments[1], options);
    return 8;
  } catch (const scn::Error& error) {
    if (error.kind() != scn::ErrorKind::kArgument) return 9;
  }
  return fnv1a(engine.run_points(points)) == hash ? 0 : 10;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return count < 5 ? 1 : run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 11;
  }
}
