// SPDX-License-Identifier: Apache-2.0
// From the points of a LiDAR to the bird's-eye-view map that a detector's head takes:
//
//   points_to_bev scn.onnx points.bin FORMAT RANGE VOXEL bev.npy [THREADS]
//   points_to_bev scn.plan points.bin float32x5 -54,-54,-5,54,54,3 0.075,0.075,0.2 bev.npy
//
// FORMAT: float32x4 to float32x6, or float16x4 to float16x6: a raw file of so many columns, x, y, z in metres
// first. RANGE and VOXEL: the network's grid, x, y, z; "-" for both: the one that the file records. Writes
// the first output, [batch, channels, y, x] in float16, as .npy or .tensor; prints its shape and hash, and
// the times. Exits with 1 and a message if anything is wrong.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "files.h"
#include "scn_fx/engine.h"
#include "scn_fx/half.h"

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point began) {
  return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

std::vector<double> numbers_of(const std::string& text, size_t count, const char* what) {
  std::vector<double> numbers;
  const char* at = text.c_str();
  for (char* end = nullptr; numbers.size() < count; at = end + 1) {
    numbers.push_back(std::strtod(at, &end));
    const bool last = numbers.size() == count;
    if (end == at || !std::isfinite(numbers.back()) || *end != (last ? '\0' : ',')) {
      throw std::runtime_error(std::string(what) + " must be " + std::to_string(count) +
                               " numbers with commas between them, got '" + text + "'.");
    }
  }
  return numbers;
}

std::optional<scn::VoxelGrid> grid_of(const std::string& range, const std::string& voxel) {
  if (range == "-" && voxel == "-") return {};
  scn::VoxelGrid grid;
  const std::vector<double> corners = numbers_of(range, 6, "RANGE"), edges = numbers_of(voxel, 3, "VOXEL");
  std::copy(corners.begin(), corners.end(), grid.point_range.begin());
  std::copy(edges.begin(), edges.end(), grid.voxel_size.begin());
  return grid;
}

/// Points of one scan: x, y, z in metres first.
struct Points {
  int64_t count = 0;
  int32_t columns = 0;
  std::vector<float> values;  // [count, columns]
};

Points read_points(const std::string& path, const std::string& format) {
  const bool half = format.compare(0, 8, "float16x") == 0;
  const int32_t columns = format.size() == 9 ? format[8] - '0' : 0;
  if ((!half && format.compare(0, 8, "float32x") != 0) || columns < 4 || columns > 6) {
    throw std::runtime_error("FORMAT must be float32x4 to float32x6 or float16x4 to float16x6, got '" +
                             format + "'.");
  }
  const std::vector<char> bytes = example::read_bytes(path);
  const size_t record = size_t(columns) * (half ? 2 : 4);
  if (bytes.size() % record != 0) {
    throw std::runtime_error(path + ": expected a multiple of " + std::to_string(record) + " bytes for " +
                             format + ", got " + std::to_string(bytes.size()) +
                             ". The file is cut off, or has another format.");
  }
  Points points{int64_t(bytes.size() / record), columns, {}};
  points.values.resize(size_t(points.count * columns));
  for (size_t i = 0; i < points.values.size(); ++i) {
    uint16_t bits;
    if (half) {
      std::memcpy(&bits, bytes.data() + 2 * i, sizeof bits);
      points.values[i] = scn::half_to_float(bits);
    } else {
      std::memcpy(&points.values[i], bytes.data() + 4 * i, sizeof(float));
    }
    if (std::isfinite(points.values[i])) continue;
    throw std::runtime_error(path + ": point " + std::to_string(i / size_t(columns)) +
                             " holds NaN or infinity. Remove such points, and check the format.");
  }
  return points;
}

/// The first columns of the points, those that the network reads.
Points first_columns(const Points& points, int32_t columns) {
  Points cut{points.count, columns, {}};
  for (int64_t i = 0; i < points.count; ++i) {
    const float* const point = points.values.data() + i * points.columns;
    cut.values.insert(cut.values.end(), point, point + columns);
  }
  return cut;
}

/// What the engine makes of the points of one scan.
std::vector<scn::Result> bev_of_points(scn::Engine& engine, const Points& points) {
  scn::PointsView view;
  view.points = points.values.data();
  view.count = points.count;
  view.columns = points.columns;
  return engine.run_points(view);
}

void run(const std::string& model, const std::string& points_path, const std::string& format,
         const std::optional<scn::VoxelGrid>& grid, const std::string& output, int threads) {
  Points points = read_points(points_path, format);
  scn::EngineOptions options;
  options.grid = grid;
  options.threads = threads;
  Clock::time_point began = Clock::now();
  scn::Engine engine(model, options);
  const double loading = milliseconds_since(began);
  if (engine.input_channels() > points.columns) {
    throw std::runtime_error(points_path + ": the network reads " + std::to_string(engine.input_channels()) +
                             " columns, " + format + " has " + std::to_string(points.columns) + ".");
  }
  points = first_columns(points, engine.input_channels());

  std::vector<scn::Result> results;
  double best = 1e300;
  for (int i = 0; i < 3; ++i) {  // the first run also allocates
    began = Clock::now();
    results = bev_of_points(engine, points);
    best = std::min(best, milliseconds_since(began));
  }
  const scn::Result& map = results.front();
  if (map.sparse || map.dims.size() != 4) {
    throw std::runtime_error(model + ": its first output is no map [batch, channels, y, x] but " +
                             (map.sparse ? "sparse" : "[" + example::shape_of(map) + "]") +
                             ". Export the network with the dense map as its output.");
  }
  example::print(map);
  std::printf(
      "%lld points to the map in %.2f ms, the best of 3 runs; engine loaded in %.2f ms (threads: %d, %s)\n",
      static_cast<long long>(points.count), best, loading, engine.threads(), engine.backend().c_str());
  example::write_values(output, map);
  std::printf("saved %s\n", output.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7 || argc > 8) {
    std::fprintf(stderr, "usage: points_to_bev scn.onnx points.bin FORMAT RANGE VOXEL bev.npy [THREADS]\n");
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3], grid_of(argv[4], argv[5]), argv[6], argc > 7 ? std::atoi(argv[7]) : 0);
  } catch (const std::exception& error) {  // scn::Error is one, and says what to do
    std::fprintf(stderr, "Error: %s\n", error.what());
    return 1;
  }
  return 0;
}
