// SPDX-License-Identifier: Apache-2.0
#include "engine/session.h"

#include <new>

#include "core/error.h"
#include "cpu/executor.h"
#include "cuda/backend.h"
#include "cuda/traits.h"

namespace scn {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

/// What is wrong with the nodes of a plan has come into it after the ONNX file had passed.
Network network_of(const OnnxModel& model, const NetworkOptions& options, bool cuda) {
  if (!model.plan) return read_network(model, options);
  try {
    Network network = read_network(model, options);
    for (const NodeSpec& node : network.nodes) {
      if (cuda && node.kind == NodeKind::kConvolution && node.weight.empty())
        ByteReader::corrupt("a layer without weights");
    }
    return network;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kOnnx) throw;
    fail(ErrorKind::kPlan, "The plan is damaged, or was not written by this library. ", e.what());
  }
}

}  // namespace

Plan make_plan(const OnnxModel& model, const EngineOptions& given, const MemoryLimits& limits) {
  const EngineOptions options = settled(model, given);
  return build_plan(network_of(model, {options.float32, options.spatial_shape, limits.load}, options.cuda),
                    options.cuda ? kCudaTraits : kCpuTraits, options.trace);
}

Session::Session(const OnnxModel& model, const EngineOptions& options, const MemoryLimits& limits)
    : plan_(std::make_unique<Plan>(make_plan(model, options, limits))),
      limits_(limits),
      float32_(options.float32) {
  if (options.cuda) {
    std::unique_ptr<DeviceExecutor> made = make_cuda_executor(*plan_, options.cuda_options, limits);
    device_ = made.get();
    executor_ = std::move(made);
  } else {
    executor_ = std::make_unique<CpuExecutor>(*plan_, options.threads, limits,
                                              model.plan ? &model.plan->weights : nullptr);
  }
}

Session::~Session() {
  if (!forked_) return;
  settle_after_fork();
  // Freeing a parent's device memory is as impossible as using it.
  if (device_) static_cast<void>(executor_.release());
}

void Session::settle_after_fork() const noexcept {
  if (forked_ && executor_->abandon_frames()) forked_ = false;
}

void Session::after_fork() noexcept {
  new (&mutex_) std::recursive_mutex;  // a thread that is not here may hold it
  forked_ = true;
}

std::vector<Result> Session::run(const FrameView& frame, std::vector<StageTime>* times) {
  const Lock lock(mutex_);
  if (device_) device();  // throws in the child of a fork
  settle_after_fork();
  Buffer<Site> sites;
  return executor_->run(with_sites(frame, &sites), times);
}

void Session::enqueue(const FrameView& frame, void* stream) {
  const Lock lock(mutex_);
  if (frame.rows) {
    fail(ErrorKind::kArgument,
         "A frame in device memory has its sites in `indices`, rows of four int32 (batch, z, y, x), and none "
         "in `rows`. Make such rows of it, with 0 for the axes that the network lacks.");
  }
  device().enqueue(frame, stream);
  stream_ = stream;
}

void Session::enqueue_host(const FrameView& frame, void* stream) {
  const Lock lock(mutex_);
  enqueue(upload(frame, stream), stream);
}

FrameView Session::upload(const FrameView& frame, void* stream) {
  const Lock lock(mutex_);
  Buffer<Site> sites;
  return device().upload(with_sites(frame, &sites), stream);
}

std::vector<Result> Session::fetch() {
  const Lock lock(mutex_);
  return device().fetch();
}

std::vector<StageTime> Session::profile(const FrameView& frame, void* stream) {
  const Lock lock(mutex_);
  stream_ = stream;
  return device().profile(frame, stream);
}

FrameView Session::with_sites(const FrameView& frame, Buffer<Site>* sites) const {
  if (!frame.rows) return frame;
  const int ndim = plan_->network.ndim;
  if (ndim == 3 || frame.indices) {
    fail(ErrorKind::kArgument,
         "A frame has its sites in `indices` or, for a network of one or two dimensions, ",
         "in `rows`; this network has ", ndim, ", and the frame has ",
         frame.indices ? "both" : "`rows` alone", ".");
  }
  FrameView made = frame;
  made.rows = nullptr;
  if (frame.sites <= 0) return made;
  MemoryBudget(limits_.all).take(Size(frame.sites) * sizeof(Site), "The input", "its sites");
  sites->resize(frame.sites);
  const int32_t* row = frame.rows;
  for (int64_t i = 0; i < frame.sites; ++i, row += ndim + 1)
    sites->data()[i] = {row[0], 0, ndim == 2 ? row[1] : 0, row[ndim]};
  made.indices = sites->data();
  return made;
}

DeviceExecutor& Session::device() {
  if (!device_) fail(ErrorKind::kArgument, "This engine runs on the CPU; make one with EngineOptions::cuda.");
  if (forked_) {
    fail(ErrorKind::kArgument,
         "This engine was made before the process was forked, and CUDA does not work in the child of a fork. "
         "Start processes with multiprocessing's 'spawn' method, and make an engine in each.");
  }
  return *device_;
}

void* Session::stream() const {
  const Lock lock(mutex_);
  return stream_;
}

BufferBytes Session::buffer_bytes() const {
  const Lock lock(mutex_);
  settle_after_fork();
  return executor_->buffer_bytes();
}

}  // namespace scn
