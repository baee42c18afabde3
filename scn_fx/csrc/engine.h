// SPDX-License-Identifier: Apache-2.0
// The engine as a C++ program uses it: load an ONNX file in the libspconv dialect, then run frames.
//
//   scn::Engine engine(scn::load_onnx("scn.onnx"), {});
//   scn::FrameView frame{features, /*half=*/true, sites, channels, indices};
//   std::vector<scn::Result> results = engine.run(frame);
//
// With options.cuda it runs on a GPU: run() takes and returns host memory all the same, enqueue() device
// memory.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "cpu/executor.h"
#include "cuda/backend.h"
#include "error.h"
#include "fork.h"
#include "onnx/model.h"
#include "plan/plan.h"

namespace scn {

struct EngineOptions {
  bool float32 = false;           // everything in float32 instead of the file's precisions
  bool trace = false;             // keep every node's value, fuse nothing
  int threads = 0;                // of the CPU; 0: one per usable processor
  Triple spatial_shape{0, 0, 0};  // grid (z, y, x) of the input, for files that do not say
  int64_t memory_limit = 0;       // bytes of host memory for weights and a frame; 0: see MemoryLimits
  bool cuda = false;              // run on a GPU, with these options
  CudaOptions cuda_options;
};

/// A loaded network. Calls from several threads take turns. After a call that threw, whatever it was, the
/// next is as good as on a new engine. In the child of a fork, an engine on the CPU goes on; one on a GPU
/// does not, since CUDA does not, and says so.
class Engine {
 public:
  Engine(const OnnxModel& model, const EngineOptions& options)
      : Engine(model, options, MemoryLimits::of(options.memory_limit, model.buffer.size())) {}
  ~Engine();

  /// Runs a frame in host memory. One result per output of the file; with trace, one per node instead.
  std::vector<Result> run(const FrameView& frame, std::vector<StageTime>* times = nullptr);

  /// CUDA: enqueues a frame in device memory on a stream (cudaStream_t), see CudaExecutor::enqueue.
  void enqueue(const FrameView& frame, void* stream);
  /// CUDA: the same for a frame in host memory, which has been read when this returns.
  void enqueue_host(const FrameView& frame, void* stream);
  /// CUDA: waits for the frame enqueued last and copies its results to the host.
  std::vector<Result> fetch();
  /// CUDA: stages of a frame in device memory; waits.
  std::vector<StageTime> profile(const FrameView& frame, void* stream);
  /// CUDA: device copies of a frame in host memory, valid until the next call of this or of enqueue_host.
  FrameView upload(const FrameView& frame, void* stream);
  /// CUDA: stream of the frame enqueued last.
  void* stream() const;

  const Plan& plan() const { return *plan_; }
  bool on_cuda() const { return cuda_ != nullptr; }
  BufferBytes buffer_bytes() const;
  const CpuExecutor& executor() const { return *executor_; }  // of an engine on the CPU
  /// In the child of a fork, see ForkHandler.
  void after_fork() noexcept;
  CudaExecutor& cuda();  // of an engine on a GPU

 private:
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<CpuExecutor> executor_;
  std::unique_ptr<CudaExecutor> cuda_;
  std::unique_ptr<CudaStaging> staging_;
  void* stream_ = nullptr;
  Engine(const OnnxModel& model, const EngineOptions& options, const MemoryLimits& limits);
  /// Called with the lock held, before anything else.
  void settle_after_fork() const noexcept;

  mutable std::recursive_mutex mutex_;
  mutable bool forked_ = false;
  const ForkHandler fork_{this};
};

}  // namespace scn
