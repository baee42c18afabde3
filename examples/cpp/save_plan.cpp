// SPDX-License-Identifier: Apache-2.0
// Makes a plan of an ONNX file, for the CPU or for a GPU of this machine, and prints what it says; of a plan
// alone, what that says:
//
//   save_plan scn.onnx scn.plan [cpu|cuda|cuda:N]
//   save_plan scn.plan
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include "scn_fx/plan.h"

namespace {

scn::EngineOptions options_of(const std::string& device) {
  scn::EngineOptions options;
  options.cuda = device.compare(0, 4, "cuda") == 0;
  if (!options.cuda && device != "cpu")
    throw std::runtime_error("The device must be cpu, cuda or cuda:N, got '" + device + "'.");
  if (device.size() > 5) options.cuda_options.device = std::atoi(device.c_str() + 5);
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: save_plan scn.onnx scn.plan [cpu|cuda|cuda:N]\n       save_plan scn.plan\n");
    return 2;
  }
  try {
    const std::string plan = argc > 2 ? argv[2] : argv[1];
    if (argc > 2) scn::save_plan(argv[1], plan, options_of(argc > 3 ? argv[3] : "cpu"));
    const scn::PlanInfo info = scn::read_plan_info(plan);
    std::printf("%s%s: format %" PRIu32 " of version %s, for %s, of an ONNX file with SHA-256 %s\n",
                argc > 2 ? "saved " : "", plan.c_str(), info.format, info.library.c_str(), info.kind.c_str(),
                info.onnx_sha256.c_str());
  } catch (const std::exception& error) {  // scn::Error is one, and says what to do
    std::fprintf(stderr, "Error: %s\n", error.what());
    return 1;
  }
  return 0;
}
