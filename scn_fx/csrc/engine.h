// SPDX-License-Identifier: Apache-2.0
// The engine as a C++ program uses it: load an ONNX file in the libspconv dialect, then run frames.
//
//   scn::Engine engine(scn::load_onnx("scn.onnx"), {});
//   scn::FrameView frame{features, /*half=*/true, sites, channels, indices};
//   std::vector<scn::Result> results = engine.run(frame);
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "cpu/executor.h"
#include "error.h"
#include "onnx/model.h"
#include "plan/plan.h"

namespace scn {

struct EngineOptions {
  bool float32 = false;           // everything in float32 instead of the file's precisions
  bool trace = false;             // keep every node's value, fuse nothing
  int threads = 0;                // 0: one per usable processor
  Triple spatial_shape{0, 0, 0};  // grid (z, y, x) of the input, for files that do not say
};

/// A loaded network. Calls from several threads take turns.
class Engine {
 public:
  Engine(const OnnxModel& model, const EngineOptions& options);

  /// One result per output of the file; with trace, one per node instead.
  std::vector<Result> run(const FrameView& frame, std::vector<StageTime>* times = nullptr);

  const Plan& plan() const { return *plan_; }
  const CpuExecutor& executor() const { return *executor_; }

 private:
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<CpuExecutor> executor_;
  std::mutex mutex_;
};

}  // namespace scn
