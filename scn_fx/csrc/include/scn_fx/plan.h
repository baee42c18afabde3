// SPDX-License-Identifier: Apache-2.0
// Plans: ONNX files made ready for one kind of processor, which Engine loads in their place. Weights are
// rounded, quantised and laid out already, and a checksum covers all of it. Loading knows nothing of ONNX.
//
//   scn::save_plan("scn.onnx", "scn.plan");
//   scn::Engine engine("scn.plan");
#pragma once

#include <cstdint>
#include <string>

#include "scn_fx/engine.h"
#include "scn_fx/export.h"

namespace scn {

/// The format that this library writes, and the only one that it reads.
constexpr uint32_t kPlanFormat = 1;

/// What a plan says about itself.
struct PlanInfo {
  uint32_t format = kPlanFormat;
  std::string library;  // version that wrote it
  /// Where it runs, as "cpu-x86_64" or "cuda-sm_90". Others refuse it.
  std::string kind;
  std::string onnx_sha256;  // of the ONNX file that it was made from, in hexadecimal
  int64_t onnx_bytes = 0;
  // The options that it was made with, and that it runs with.
  bool float32 = false;
  Triple spatial_shape{0, 0, 0};
  int32_t max_batch = 0;
  int64_t max_sites = 0;
};

/// Makes a plan of an ONNX file, for the CPU or the GPU of `options`, and writes it; the file appears
/// complete or not at all. The engine is made on the way, so what can be refused is refused here. `trace`,
/// `threads`, `memory_limit` and `graph` are those of an engine, not of a plan.
SCN_FX_EXPORT void save_plan(const std::string& onnx, const std::string& path,
                             const EngineOptions& options = {});
/// The same for the bytes of an ONNX file; returns those of the plan.
SCN_FX_EXPORT std::string plan_bytes(const void* onnx, size_t size, const EngineOptions& options = {});
/// What a plan says about itself. Throws kPlan for what is no plan, is damaged, or has another format.
SCN_FX_EXPORT PlanInfo read_plan_info(const std::string& path);

}  // namespace scn
