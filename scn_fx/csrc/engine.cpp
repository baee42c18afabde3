// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

namespace scn {

Engine::Engine(const OnnxModel& model, const EngineOptions& options)
    : plan_(std::make_unique<Plan>(
          build_plan(read_network(model, {options.float32, options.spatial_shape}), options.trace))),
      executor_(std::make_unique<CpuExecutor>(*plan_, options.threads)) {}

std::vector<Result> Engine::run(const FrameView& frame, std::vector<StageTime>* times) {
  std::lock_guard<std::mutex> lock(mutex_);
  return executor_->run(frame, times);
}

}  // namespace scn
