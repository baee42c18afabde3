// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

#include <new>

namespace scn {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

}  // namespace

Engine::Engine(const OnnxModel& model, const EngineOptions& options, const MemoryLimits& limits)
    : plan_(std::make_unique<Plan>(build_plan(
          read_network(model, {options.float32, options.spatial_shape, limits.load}), options.trace))) {
  if (options.cuda) {
    CudaOptions cuda_options = options.cuda_options;
    cuda_options.load_limit = limits.load;
    cuda_ = make_cuda_executor(*plan_, cuda_options);
    staging_ = std::make_unique<CudaStaging>(options.cuda_options.device);
  } else {
    executor_ = std::make_unique<CpuExecutor>(*plan_, options.threads, limits);
  }
}

Engine::~Engine() {
  if (!forked_) return;
  settle_after_fork();
  // Freeing a parent's device memory is as impossible as using it.
  static_cast<void>(cuda_.release());
  static_cast<void>(staging_.release());
}

void Engine::settle_after_fork() const noexcept {
  if (!forked_ || !executor_) return;  // a GPU stays out of reach
  executor_->abandon_frames();
  forked_ = false;
}

void Engine::after_fork() noexcept {
  new (&mutex_) std::recursive_mutex;  // a thread that is not here may hold it
  forked_ = true;
}

std::vector<Result> Engine::run(const FrameView& frame, std::vector<StageTime>* times) {
  const Lock lock(mutex_);
  if (executor_) {
    settle_after_fork();
    return executor_->run(frame, times);
  }
  if (times) {
    *times = profile(upload(frame, nullptr), nullptr);
  } else {
    enqueue_host(frame, nullptr);
  }
  return fetch();
}

void Engine::enqueue(const FrameView& frame, void* stream) {
  const Lock lock(mutex_);
  cuda().enqueue(frame, stream);
  stream_ = stream;
}

void Engine::enqueue_host(const FrameView& frame, void* stream) {
  const Lock lock(mutex_);
  enqueue(upload(frame, stream), stream);
}

FrameView Engine::upload(const FrameView& frame, void* stream) {
  const Lock lock(mutex_);
  cuda();  // throws on the CPU
  FrameView copy = frame;
  const Size features = Size(frame.sites) * frame.channels * (frame.half ? 2 : 4);
  copy.features = staging_->upload(0, frame.features, features.value(), stream);
  copy.indices = static_cast<const Site*>(
      staging_->upload(1, frame.indices, (Size(frame.sites) * sizeof(Site)).value(), stream));
  return copy;
}

std::vector<Result> Engine::fetch() {
  const Lock lock(mutex_);
  CudaExecutor& executor = cuda();
  executor.synchronize();
  void* const stream = executor.stream();  // the frame has ended, and with it perhaps the caller's stream
  std::vector<Result> out;
  for (const DeviceResult& from : executor.results()) {
    Result to;
    to.dims = from.dims;
    to.half = from.half;
    to.sparse = from.sparse;
    if (from.sparse) {
      to.dims[0] = executor.sites_of(from);
      to.sites.resize(size_t(to.dims[0]));
      cuda_to_host(executor.device(), to.sites.data(), from.sites, to.dims[0] * int64_t(sizeof(Site)),
                   stream);
    }
    const Size bytes = Size::of(to.dims) * (to.half ? 2 : 4);
    to.data.reset(new char[bytes.count()]);
    cuda_to_host(executor.device(), to.data.get(), from.data, bytes.value(), stream);
    out.push_back(std::move(to));
  }
  return out;
}

std::vector<StageTime> Engine::profile(const FrameView& frame, void* stream) {
  const Lock lock(mutex_);
  stream_ = stream;
  return cuda().profile(frame, stream);
}

CudaExecutor& Engine::cuda() {
  if (!cuda_) fail(ErrorKind::kArgument, "This engine runs on the CPU; make one with EngineOptions::cuda.");
  if (forked_) {
    fail(ErrorKind::kArgument,
         "This engine was made before the process was forked, and CUDA does not work in the child of a fork. "
         "Start processes with multiprocessing's 'spawn' method, and make an engine in each.");
  }
  return *cuda_;
}

void* Engine::stream() const {
  const Lock lock(mutex_);
  return stream_;
}

BufferBytes Engine::buffer_bytes() const {
  const Lock lock(mutex_);
  settle_after_fork();
  return cuda_ ? cuda_->buffer_bytes() : executor_->buffer_bytes();
}

}  // namespace scn
