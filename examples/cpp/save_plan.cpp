// SPDX-License-Identifier: Apache-2.0
// Makes a plan of an ONNX file, for the CPU or for a GPU of this machine, and prints what it says:
//
//   save_plan scn.onnx scn.plan [cpu|cuda|cuda:N]
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include "scn_fx/plan.h"

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::fprintf(stderr, "usage: save_plan scn.onnx scn.plan [cpu|cuda|cuda:N]\n");
    return 2;
  }
  try {
    scn::EngineOptions options;
    const std::string device = argc > 3 ? argv[3] : "cpu";
    options.cuda = device.compare(0, 4, "cuda") == 0;
    if (!options.cuda && device != "cpu")
      throw std::runtime_error("The device must be cpu, cuda or cuda:N, got '" + device + "'.");
    if (device.size() > 5) options.cuda_options.device = std::atoi(device.c_str() + 5);
    scn::save_plan(argv[1], argv[2], options);
    const scn::PlanInfo info = scn::read_plan_info(argv[2]);
    std::printf("saved %s: format %" PRIu32 " of version %s, for %s, of an ONNX file with SHA-256 %s\n",
                argv[2], info.format, info.library.c_str(), info.kind.c_str(), info.onnx_sha256.c_str());
  } catch (const std::exception& error) {  // scn::Error is one, and says what to do
    std::fprintf(stderr, "Error: %s\n", error.what());
    return 1;
  }
  return 0;
}
