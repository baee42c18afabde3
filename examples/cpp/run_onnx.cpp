// SPDX-License-Identifier: Apache-2.0
// Runs one frame through an ONNX file of the libspconv dialect, or a plan made of one, without Python:
//
//   run_onnx scn.onnx features.tensor indices.tensor [THREADS]
//
// features: float16 or float32 [N, C]; indices: int32 [N, 4], rows of (batch, z, y, x). Prints shape, sums
// and a hash of every output, and the time. Exits with 1 and a message if anything is wrong.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "files.h"
#include "scn_fx/engine.h"

namespace {

void run(const std::string& onnx, const std::string& features_path, const std::string& indices_path,
         int threads) {
  const example::Matrix features = example::read_tensor(features_path),
                        indices = example::read_tensor(indices_path);
  if (features.type == example::kInt32)
    throw std::runtime_error(features_path + ": features must be float16 or float32.");
  if (indices.type != example::kInt32 || indices.columns != 4 || indices.rows != features.rows) {
    throw std::runtime_error(indices_path + ": expected int32 [" + std::to_string(features.rows) +
                             ", 4], a row of (batch, z, y, x) for each row of features.");
  }

  scn::EngineOptions options;
  options.threads = threads;
  scn::Engine engine(onnx, options);

  scn::FrameView frame;
  frame.features = features.data.data();
  frame.half = features.type == example::kFloat16;
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
  for (const scn::Result& result : results) example::print(result);
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
