// SPDX-License-Identifier: Apache-2.0
// Which plans run where.
#include "plan/plan.h"
#include "plan_file/plan_file.h"
#include "scn_fx/gpu.h"

namespace scn {
namespace {

#if defined(__x86_64__) || defined(_M_X64)
const std::string kCpu = "cpu-x86_64";
#elif defined(__aarch64__) || defined(_M_ARM64)
const std::string kCpu = "cpu-aarch64";
#else
const std::string kCpu = "cpu-other";
#endif
const std::string kGpu = "cuda-";

std::string shown(const Triple& t) { return t == Triple{0, 0, 0} ? "none" : to_string(t); }
std::string shown(int64_t number) { return number ? std::to_string(number) : "none"; }

/// An option that the caller may leave out, or repeat.
template <typename Value>
void check_option(const char* name, const Value& said, const Value& given) {
  if (given == Value{} || given == said) return;
  fail(ErrorKind::kArgument, "The plan was made with ", name, ": ", shown(said),
       "; this engine is asked for ", shown(given),
       ". Leave the option out, or make another plan from the ONNX file.");
}

}  // namespace

std::string processor_kind(const EngineOptions& options) {
  if (!options.cuda) return kCpu;
  const CudaInfo info = cuda_info();
  const int device = options.cuda_options.device;
  if (device < 0 || size_t(device) >= info.devices.size()) return "";
  return kGpu + "sm_" + std::to_string(info.devices[size_t(device)].architecture);
}

EngineOptions settled(const OnnxModel& model, const EngineOptions& given) {
  if (!model.plan) return given;
  const PlanInfo& info = model.plan->info;
  const std::string here = processor_kind(given);
  const bool for_gpu = info.kind.compare(0, kGpu.size(), kGpu) == 0;
  // Without a GPU the backend says why there is none.
  if (for_gpu != given.cuda || (!here.empty() && info.kind != here)) {
    fail(ErrorKind::kPlan, "The plan was made for ", info.kind, ", this engine runs on ",
         here.empty() ? "a GPU" : here, ". ",
         for_gpu != given.cuda ? (for_gpu ? "Run it on such a GPU" : "Run it on the CPU")
                               : "Run it on a processor of that kind",
         ", or make another plan from its ONNX file here: weights and kernels are those of one kind.");
  }
  if (given.float32 && !info.float32) {
    fail(ErrorKind::kArgument,
         "The plan was made with the precisions of the file; this engine is asked for float32 throughout. "
         "Leave "
         "the option out, or make another plan from the ONNX file.");
  }
  check_option("the grid of the input", info.spatial_shape, given.spatial_shape);
  check_option("the largest batch", int64_t(info.max_batch), int64_t(given.cuda_options.max_batch));
  check_option("the most sites", info.max_sites, given.cuda_options.max_sites);
  EngineOptions options = given;
  options.float32 = info.float32;
  options.spatial_shape = info.spatial_shape;
  options.cuda_options.max_batch = info.max_batch;
  options.cuda_options.max_sites = info.max_sites;
  return options;
}

}  // namespace scn
