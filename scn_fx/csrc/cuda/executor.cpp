// SPDX-License-Identifier: Apache-2.0
// Runs a plan on a CUDA device: everything is allocated when the executor is made, a frame only enqueues
// kernels.
#include <algorithm>
#include <cstring>

#include "core/sizes.h"
#include "cuda/backend.h"
#include "cuda/device_plan.h"
#include "cuda/failure.h"
#include "cuda/runtime/device_guard.h"
#include "cuda/runtime/staging.h"
#include "cuda/runtime/streams.h"

namespace scn::cuda {
namespace {

/// Dense maps are cleared beside the layer that comes so many steps before the first that writes to one:
/// late, so that their cells are still in the second-level cache, and clear of the beginning, where kernels
/// are short.
constexpr size_t kClearAhead = 4;

class Executor final : public DeviceExecutor {
 public:
  Executor(const Plan& plan, const CudaOptions& options, const MemoryLimits& limits)
      : plan_(plan),
        options_(options),
        device_(plan, options, limits.load),
        staging_(options.device),
        failure_(int64_t(sizeof(FailureHeader)) + 4 * device_.status_entries()) {
    if (options.graph) capture();
  }

  void enqueue(const FrameView& frame, void* stream_handle) override {
    const DeviceGuard guard(options_.device);
    const cudaStream_t stream = static_cast<cudaStream_t>(stream_handle);
    throw_pending();
    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &capturing), "asking about the stream");
    captured_by_caller_ = capturing != cudaStreamCaptureStatusNone;
    // Frames share the engine's memory: one on another stream must have ended.
    if (!captured_by_caller_) check(cudaStreamWaitEvent(stream, done_, 0), "waiting for the last frame");
    begin(frame, stream);
    if (options_.graph && !captured_by_caller_) {
      check(cudaGraphLaunch(graph_, stream), "launching the graph");
    } else {
      launch(stream, nullptr);
    }
    unfinished_ = false;
    if (!captured_by_caller_) check(cudaEventRecord(done_, stream), "recording an event");
  }

  const std::vector<DeviceResult>& results() const override { return device_.results(); }

  void synchronize() override {
    const DeviceGuard guard(options_.device);
    if (captured_by_caller_) {
      check(cudaDeviceSynchronize(), "running a frame");  // nobody tells when the caller's graph runs
    } else {
      check(cudaEventSynchronize(done_), "running a frame");
    }
    throw_pending();
  }

  int64_t sites_of(const DeviceResult& result) override {
    synchronize();
    const DeviceGuard guard(options_.device);
    int32_t count = 0;
    check(cudaMemcpy(&count, result.count, sizeof(count), cudaMemcpyDeviceToHost),
          "reading a number of sites");
    return count;
  }

  std::vector<StageTime> profile(const FrameView& frame, void* stream_handle) override {
    const DeviceGuard guard(options_.device);
    const cudaStream_t stream = static_cast<cudaStream_t>(stream_handle);
    throw_pending();
    Stages stages;
    check(cudaStreamWaitEvent(stream, done_, 0), "waiting for the last frame");
    begin(frame, stream);
    stages.stop("begin", "input", "", stream);
    launch(stream, &stages);
    unfinished_ = false;
    check(cudaEventRecord(done_, stream), "recording an event");
    captured_by_caller_ = false;
    synchronize();
    return stages.times();
  }

  BufferBytes buffer_bytes() const override { return device_.buffer_bytes(); }
  int device() const override { return options_.device; }
  int threads() const override { return 0; }
  std::string backend() const override { return "cuda:" + std::to_string(options_.device); }
  std::string kernel_of(size_t step) const override { return device_.kernel_of(step); }
  bool abandon_frames() noexcept override { return false; }

  std::vector<Result> run(const FrameView& frame, std::vector<StageTime>* times) override {
    if (times) {
      *times = profile(upload(frame, nullptr), nullptr);
    } else {
      enqueue(upload(frame, nullptr), nullptr);
    }
    return fetch();
  }

  FrameView upload(const FrameView& frame, void* stream) override {
    FrameView copy = frame;
    const Size features = Size(frame.sites) * frame.channels * (frame.half ? 2 : 4);
    copy.features = staging_.upload(0, frame.features, features.value(), stream);
    copy.indices = static_cast<const Site*>(
        staging_.upload(1, frame.indices, (Size(frame.sites) * sizeof(Site)).value(), stream));
    return copy;
  }

  std::vector<Result> fetch() override {
    synchronize();
    // The frame has ended, and with it perhaps the caller's stream.
    void* const stream = cudaStream_t(own_);
    std::vector<Result> out;
    for (const DeviceResult& from : results()) {
      Result to;
      to.dims = from.dims;
      to.half = from.half;
      to.sparse = from.sparse;
      if (from.sparse) {
        to.dims[0] = sites_of(from);
        to.sites.resize(size_t(to.dims[0]));
        copy_to_host(device(), to.sites.data(), from.sites, to.dims[0] * int64_t(sizeof(Site)), stream);
      }
      const Size bytes = Size::of(to.dims) * (to.half ? 2 : 4);
      to.data.reset(new char[bytes.count()]);
      copy_to_host(device(), to.data.get(), from.data, bytes.value(), stream);
      out.push_back(std::move(to));
    }
    return out;
  }

  ~Executor() override {
    int before = 0;
    cudaGetDevice(&before);
    cudaSetDevice(options_.device);
    cudaDeviceSynchronize();  // kernels in flight use what is freed next
    if (graph_) cudaGraphExecDestroy(graph_);
    cudaSetDevice(before);
  }

 private:
  /// Checks what the host knows and tells the device.
  void begin(const FrameView& frame, cudaStream_t stream) {
    const Network& net = plan_.network;
    const ValueSpec& features = net.values[size_t(net.features)];
    if (frame.channels != features.channels) {
      fail(ErrorKind::kSite, "The network reads ", features.channels, " features per site, the frame has ",
           frame.channels, ". Check which columns the model was trained on.");
    }
    if (reinterpret_cast<uintptr_t>(frame.indices) % sizeof(Site) != 0) {
      fail(ErrorKind::kSite, "The indices must begin at an address that is a multiple of ", sizeof(Site),
           ", since a row is read at once. Make a copy of them first.");
    }
    if (frame.sites > device_.sets()[0].capacity) {
      const Triple& shape = net.sets[0].shape;
      if (Size(frame.sites) > Size::of(shape) * device_.batch()) {
        fail(ErrorKind::kSite, "The input: ", frame.sites, " sites are more than a grid of ",
             to_string(shape), " with batch ", device_.batch(),
             " has cells, so some are duplicates. Each voxel may occur once.");
      }
      fail(ErrorKind::kBound, "The input: ", frame.sites, " sites, but this engine was made for ",
           device_.sets()[0].capacity,
           ". Pass a larger max_voxels, or capture the model with a larger output_bound.");
    }
    const int32_t batch = frame.batch ? frame.batch : net.batch ? net.batch : device_.batch();
    if (batch < 1) fail(ErrorKind::kArgument, "The batch size must be at least 1, got ", batch, ".");
    if (batch > device_.batch()) {
      fail(ErrorKind::kArgument, "The frame has batch ", batch, ", but this engine was made for ",
           device_.batch(), ". Pass max_batch_size=", batch, " when making it.");
    }
    if (frame.sites < 0) fail(ErrorKind::kSite, "A frame has at least 0 sites, got ", frame.sites, ".");
    for (size_t i = 0; i < plan_.outputs.size(); ++i) {
      const PlanOutput& output = plan_.outputs[i];
      if (output.dense < 0) continue;
      const ValueSpec& value = net.values[size_t(output.value)];
      if (batch != net.batch && !value.batch_first) {
        fail(ErrorKind::kArgument, value.name,
             ": its shape does not start with the batch, so it only runs with the exported batch of ",
             net.batch, ", not ", batch, ".");
      }
      if (value.batch_first) device_.results()[i].dims[0] = batch;
    }
    if (unfinished_) device_.reset_sets(stream);
    unfinished_ = true;
    DeviceFrame view{};
    view.features = frame.features;
    view.indices = frame.indices;
    view.sites = narrow(frame.sites, "The number of sites");
    view.half = frame.half;
    view.batch = batch;
    begin_frame(device_.frame(), view, device_.status(), device_.status_entries(),
                device_.far_counts().data(), int32_t(device_.far_counts().size()), stream);
  }

  void capture() {
    const Stream stream;
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "starting a capture");
    try {
      launch(stream, nullptr);
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "ending a capture");
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "instantiating a graph");
    check(cudaGraphUpload(graph_, stream), "uploading a graph");
    check(cudaStreamSynchronize(stream), "uploading a graph");
  }

  /// Everything behind begin(): into a capture, or at once. The sites and maps of later levels are made
  /// beside the layers on the input's sites. With `stages`, nothing runs side by side.
  void launch(cudaStream_t stream, Stages* stages) {
    const auto stop = [&](const char* kind, const std::string& name, const std::string& kernel = "") {
      if (stages) stages->stop(kind, name, kernel, stream);
    };
    const bool beside = stages == nullptr;
    const std::vector<SitesView>& sets = device_.sets();
    const cudaStream_t side = beside ? cudaStream_t(side_) : stream;
    if (beside) wait_for(side, stream, forked_);
    mark_input(device_.frame(), sets[0], device_.status(), stream);
    stop("mark_sites", "input");
    rank_sites({sets[0]}, device_.status(), stream);
    stop("rank_sites", "input");
    if (beside) check(cudaEventRecord(ranked_, stream), "recording an event");
    // The maps are made beside it, though in one stream: a branch of its own costs more than it hides.
    device_.run_step(0, false, stream);
    stop("load", "input");
    if (beside) check(cudaStreamWaitEvent(side, ranked_, 0), "waiting for an event");
    mark_outputs(sets, device_.growths(), side);
    stop("mark_sites", "later");
    if (sets.size() > 1) rank_sites({sets.begin() + 1, sets.end()}, device_.status(), side);
    stop("rank_sites", "later");
    if (!device_.later_maps().empty()) build_maps(device_.later_maps(), false, side);
    stop("kernel_maps", "later");
    if (beside) check(cudaEventRecord(mapped_, side), "recording an event");
    if (!device_.first_maps().empty()) build_maps(device_.first_maps(), true, stream);
    stop("kernel_maps", "input");
    // Nobody looks at the bitmaps from here on: what follows has kernel maps.
    if (beside) wait_for(side, stream, placed_);
    clear_sites(sets, device_.status(), side);
    if (beside) check(cudaEventRecord(cleared_, side), "recording an event");
    stop("clear_sites", "all");
    const size_t writer = first_dense_writer(), clear_at = std::max(writer, 1 + kClearAhead) - kClearAhead;
    bool joined = !beside, after_maps = true;
    for (size_t i = 1; i < plan_.steps.size(); ++i) {
      const Step& step = plan_.steps[i];
      if (!joined && device_.needs_later_maps(step)) {
        check(cudaStreamWaitEvent(stream, mapped_, 0), "waiting for an event");
        joined = after_maps = true;
      }
      if (i == clear_at && writer < plan_.steps.size()) {
        if (beside) wait_for(side, stream, multiplied_);
        device_.clear_dense(side);
        stop("clear_dense", "output");
        if (beside) check(cudaEventRecord(cleared_, side), "recording an event");
      }
      if (i == writer && beside) check(cudaStreamWaitEvent(stream, cleared_, 0), "waiting for an event");
      device_.run_step(i, after_maps, stream);
      after_maps = after_maps && step.kind != Step::Kind::kConvolution;
      stop(step_kind(step), plan_.node_of(step).name, device_.kernel_of(i));
    }
    if (beside) check(cudaStreamWaitEvent(stream, cleared_, 0), "waiting for an event");
    device_.pack_results(stream);
    stop("results", "output");
    publish_failure(device_.frame(), device_.status(), device_.status_entries(), int32_t(sets.size()),
                    device_.site_limits(), reinterpret_cast<FailureHeader*>(failure_.data()), stream);
    stop("publish", "output");
  }

  /// The first step that writes to a dense map; the number of steps, if none does.
  size_t first_dense_writer() const {
    size_t i = 0;
    while (i < plan_.steps.size() && !device_.writes_dense(plan_.steps[i])) ++i;
    return i;
  }

  /// Throws if a frame went wrong that has ended by now.
  void throw_pending() {
    volatile FailureHeader* const header = reinterpret_cast<volatile FailureHeader*>(failure_.data());
    if (!header->set) return;
    FailureHeader copy{};
    std::memcpy(&copy, failure_.data(), sizeof(copy));
    std::vector<int32_t> status(static_cast<size_t>(device_.status_entries()));
    std::memcpy(status.data(), failure_.data() + sizeof(copy), status.size() * 4);
    header->set = 0;
    throw_failure(plan_, copy, status);
  }

  const Plan& plan_;
  const CudaOptions options_;
  DevicePlan device_;
  Staging staging_;
  MappedArray<char> failure_;
  const Stream side_, own_;
  const Event forked_, ranked_, mapped_, placed_, multiplied_, cleared_, done_;
  cudaGraphExec_t graph_ = nullptr;
  bool captured_by_caller_ = false;
  bool unfinished_ = false;  // a frame began and could not be enqueued to its end
};

}  // namespace
}  // namespace scn::cuda

namespace scn {

std::unique_ptr<DeviceExecutor> make_cuda_executor(const Plan& plan, const CudaOptions& options,
                                                   const MemoryLimits& limits) {
  const cuda::DeviceGuard guard(options.device);
  return std::make_unique<cuda::Executor>(plan, options, limits);
}

}  // namespace scn
