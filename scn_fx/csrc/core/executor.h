// SPDX-License-Identifier: Apache-2.0
// What a backend offers to whoever has a plan.
#pragma once

#include <string>
#include <vector>

#include "core/point_cells.h"
#include "scn_fx/result.h"

namespace scn {

class Executor {
 public:
  virtual ~Executor() = default;

  /// Runs a frame in host memory. One result per output of the plan.
  virtual std::vector<Result> run(const FrameView& frame, std::vector<StageTime>* times) = 0;
  /// The same for points in host memory (check_points), put into the sites of `cells`.
  virtual std::vector<Result> run_points(const PointsView& points, const PointCells& cells,
                                         std::vector<StageTime>* times) = 0;
  /// The sites and features that run_points would run, points in host memory.
  virtual Voxels voxelize(const PointsView& points, const PointCells& cells) = 0;
  virtual BufferBytes buffer_bytes() const = 0;
  /// Threads that compute; 0 on a GPU.
  virtual int threads() const = 0;
  /// What computes, as "avx512vnni" or "cuda:0".
  virtual std::string backend() const = 0;
  /// The kernel that a step of the plan runs, and its configuration; empty where there is nothing to choose.
  virtual std::string kernel_of(size_t step) const = 0;
  /// Leaves the memory of earlier frames alone, the next one takes new: in the child of a fork, a thread that
  /// was not copied may have been changing it. False where a backend cannot go on there.
  virtual bool abandon_frames() noexcept = 0;
};

/// An executor whose frames and results lie in a device's memory. Streams are a cudaStream_t; null: the
/// legacy default stream.
class DeviceExecutor : public Executor {
 public:
  /// Enqueues one frame (device pointers; indices begin at a multiple of 16 bytes): no allocation, no
  /// synchronisation. Throws for what is known at once, and for what went wrong in an earlier frame that has
  /// ended by now and was not reported yet.
  virtual void enqueue(const FrameView& frame, void* stream) = 0;
  /// The same for points in device memory; the first call allocates.
  virtual void enqueue_points(const PointsView& points, const PointCells& cells, void* stream) = 0;
  /// One result per output of the plan, valid for the frame enqueued last, in the order of its stream.
  virtual const std::vector<DeviceResult>& results() const = 0;
  /// Waits for the frame enqueued last and throws if something went wrong in it. Clears what it reports.
  virtual void synchronize() = 0;
  /// Sites in a sparse result of the frame enqueued last; waits like synchronize().
  virtual int64_t sites_of(const DeviceResult& result) = 0;
  /// Runs one frame stage by stage with events between them; waits.
  virtual std::vector<StageTime> profile(const FrameView& frame, void* stream) = 0;
  /// Device copies of a frame in host memory, which has been read when this returns; valid until the next
  /// call.
  virtual FrameView upload(const FrameView& frame, void* stream) = 0;
  virtual PointsView upload_points(const PointsView& points, void* stream) = 0;
  /// Waits for the frame enqueued last and copies its results to the host.
  virtual std::vector<Result> fetch() = 0;
  virtual int device() const = 0;
};

}  // namespace scn
