// SPDX-License-Identifier: Apache-2.0
// Runs one frame through an ONNX file of the libspconv dialect, without Python:
//
//   run_onnx scn.onnx features.tensor indices.tensor [THREADS]
//
// features: float16 or float32 [N, C]; indices: int32 [N, 4], rows of (batch, z, y, x). Prints shape, sums
// and a hash of every output, and the time. Exits with 1 and a message if anything is wrong.
#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "scn_fx/engine.h"
#include "scn_fx/half.h"

namespace {

constexpr int32_t kInt32 = 1, kFloat16 = 2, kFloat32 = 3;  // type codes of .tensor files

/// A matrix from a `.tensor` file: int32 magic, number of dimensions, type code and dimensions, then the
/// data.
struct Matrix {
  int32_t type, rows, columns;
  std::vector<char> data;
};

Matrix read_tensor(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("Cannot open '" + path + "'. Check the path and its permissions.");
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  int32_t header[5] = {};  // magic, dimensions, type, rows, columns
  if (bytes.size() >= sizeof header) std::memcpy(header, bytes.data(), sizeof header);
  const bool named = header[0] == 0x33ff1101 && header[1] == 2 && header[3] >= 0 && header[4] > 0 &&
                     header[2] >= kInt32 && header[2] <= kFloat32;
  const uint64_t width = header[2] == kFloat16 ? 2 : 4;
  if (!named || bytes.size() - sizeof header != uint64_t(header[3]) * uint64_t(header[4]) * width) {
    throw std::runtime_error(path +
                             ": expected a .tensor file of int32, float16 or float32 [rows, columns].");
  }
  return {header[2], header[3], header[4], {bytes.begin() + sizeof header, bytes.end()}};
}

/// 64-bit FNV-1a: equal outputs have equal hashes, on every machine.
uint64_t fnv1a(const void* data, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3u;
  return hash;
}

void print(const scn::Result& result) {
  int64_t count = 1, nonzero = 0;
  std::string shape;
  for (const int64_t n : result.dims) {
    count *= n;
    shape += (shape.empty() ? "" : ", ") + std::to_string(n);
  }
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float value = result.half
                            ? scn::half_to_float(reinterpret_cast<const uint16_t*>(result.data.get())[i])
                            : reinterpret_cast<const float*>(result.data.get())[i];
    sum += value;
    nonzero += value != 0;
  }
  std::printf("%s [%s], sum %.9g, %" PRId64 " values are not zero, FNV-1a %016" PRIx64 "\n",
              result.half ? "float16" : "float32", shape.c_str(), sum, nonzero,
              fnv1a(result.data.get(), size_t(count) * (result.half ? 2 : 4)));
  if (result.sparse) {
    std::printf("  on %zu sites, FNV-1a %016" PRIx64 "\n", result.sites.size(),
                fnv1a(result.sites.data(), result.sites.size() * sizeof(scn::Site)));
  }
}

void run(const std::string& onnx, const std::string& features_path, const std::string& indices_path,
         int threads) {
  const Matrix features = read_tensor(features_path), indices = read_tensor(indices_path);
  if (features.type == kInt32)
    throw std::runtime_error(features_path + ": features must be float16 or float32.");
  if (indices.type != kInt32 || indices.columns != 4 || indices.rows != features.rows) {
    throw std::runtime_error(indices_path + ": expected int32 [" + std::to_string(features.rows) +
                             ", 4], a row of (batch, z, y, x) for each row of features.");
  }

  scn::EngineOptions options;
  options.threads = threads;
  scn::Engine engine(onnx, options);

  scn::FrameView frame;
  frame.features = features.data.data();
  frame.half = features.type == kFloat16;
  frame.sites = features.rows;
  frame.channels = features.columns;
  frame.indices = reinterpret_cast<const scn::Site*>(indices.data.data());

  std::vector<scn::Result> results;
  double best = 1e300;
  for (int i = 0; i < 3; ++i) {  // the first run also allocates
    const auto began = std::chrono::steady_clock::now();
    results = engine.run(frame);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  for (const scn::Result& result : results) print(result);
  std::printf("%d sites in %.2f ms, the best of 3 runs (threads: %d, %s)\n", features.rows, best * 1e3,
              engine.threads(), engine.backend().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5) {
    std::fprintf(stderr, "usage: run_onnx scn.onnx features.tensor indices.tensor [THREADS]\n");
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3], argc > 4 ? std::atoi(argv[4]) : 0);
  } catch (const std::exception& error) {  // scn::Error is one, and says what to do
    std::fprintf(stderr, "Error: %s\n", error.what());
    return 1;
  }
  return 0;
}
