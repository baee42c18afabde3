// SPDX-License-Identifier: Apache-2.0
// What stands behind an Engine: a plan and the backend that runs it. Calls from several threads take turns.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "core/buffer.h"
#include "core/executor.h"
#include "core/fork.h"
#include "core/memory_budget.h"
#include "onnx/model.h"
#include "plan/plan.h"
#include "plan/point_grid.h"
#include "plan_file/plan_file.h"
#include "scn_fx/engine.h"

namespace scn {

/// A loaded network, see Engine.
class Session {
 public:
  Session(const OnnxModel& model, const EngineOptions& options)
      : Session(model, settled(model, options), MemoryLimits::of(options.memory_limit, model.buffer.size())) {
  }
  ~Session();

  std::vector<Result> run(const FrameView& frame, std::vector<StageTime>* times = nullptr);

  // On a GPU; others throw kArgument. See DeviceExecutor.
  void enqueue(const FrameView& frame, void* stream);
  /// The same for a frame in host memory, which has been read when this returns.
  void enqueue_host(const FrameView& frame, void* stream);
  std::vector<Result> fetch();
  std::vector<StageTime> profile(const FrameView& frame, void* stream);
  FrameView upload(const FrameView& frame, void* stream);
  /// Stream of the frame enqueued last.
  void* stream() const;
  DeviceExecutor& device();

  const Plan& plan() const { return *plan_; }
  /// Whether everything runs in float32.
  bool float32() const { return float32_; }

  // Points are put into the sites of grid(), see Engine.
  std::vector<Result> run_points(const PointsView& points, std::vector<StageTime>* times = nullptr);
  Voxels voxelize(const PointsView& points);
  void enqueue_points(const PointsView& points, void* stream);
  /// The same for points in host memory, which have been read when this returns.
  void enqueue_host_points(const PointsView& points, void* stream);
  VoxelGrid grid() const { return grid_for_points(plan_->network, given_grid_); }

  BufferBytes buffer_bytes() const;
  int threads() const { return executor_->threads(); }
  std::string backend() const { return executor_->backend(); }
  std::string kernel_of(size_t step) const { return executor_->kernel_of(step); }
  /// In the child of a fork, see ForkHandler.
  void after_fork() noexcept;

 private:
  Session(const OnnxModel& model, const EngineOptions& options, const MemoryLimits& limits);
  /// The frame with `indices`: its own, or `rows` spread into `sites`.
  FrameView with_sites(const FrameView& frame, Buffer<Site>* sites) const;
  /// How points come to the network's sites; throws for points that it does not read.
  const PointCells& cells_for(const PointsView& points);
  /// Called with the lock held, before anything else.
  void settle_after_fork() const noexcept;

  std::unique_ptr<Plan> plan_;
  std::unique_ptr<Executor> executor_;
  DeviceExecutor* device_ = nullptr;  // the executor, of an engine on a GPU
  const MemoryLimits limits_;
  const bool float32_;
  const std::optional<VoxelGrid> given_grid_;
  std::optional<PointCells> cells_;  // of grid(), once they are known
  void* stream_ = nullptr;

  mutable std::recursive_mutex mutex_;
  mutable bool forked_ = false;
  const ForkHandler fork_{this};
};

/// The plan of a model for a backend, which need not be there.
Plan make_plan(const OnnxModel& model, const EngineOptions& options, const MemoryLimits& limits);

}  // namespace scn
