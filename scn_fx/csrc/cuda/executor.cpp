// SPDX-License-Identifier: Apache-2.0
// Runs a plan on a CUDA device: everything is allocated when the executor is made, a frame only enqueues
// kernels.
#include <algorithm>
#include <cstring>

#include "core/sizes.h"
#include "cuda/backend.h"
#include "cuda/device_plan.h"
#include "cuda/failure.h"
#include "cuda/fetch.h"
#include "cuda/frame_checks.h"
#include "cuda/points/point_memory.h"
#include "cuda/runtime/device_guard.h"
#include "cuda/runtime/staging.h"
#include "cuda/runtime/streams.h"

namespace scn::cuda {
namespace {

/// Dense maps are cleared beside the layer that comes so many steps before the first that writes to one:
/// late, so that their cells are still in the second-level cache, and clear of the beginning, where kernels
/// are short.
constexpr size_t kClearAhead = 4;

constexpr int64_t kDefaultPoints = 1 << 20;

class Executor final : public DeviceExecutor {
 public:
  Executor(const Plan& plan, const CudaOptions& options, const MemoryLimits& limits)
      : plan_(plan),
        options_(options),
        device_(plan, options, limits.load),
        staging_(options.device),
        failure_(int64_t(sizeof(FailureHeader)) + 4 * device_.status_entries()) {
    if (options.graph) graph_ = capture(false);
  }

  void enqueue(const FrameView& frame, void* stream_handle) override {
    const DeviceGuard guard(options_.device);
    const cudaStream_t stream = static_cast<cudaStream_t>(stream_handle);
    throw_pending();
    captured_by_caller_ = is_captured(stream);
    follow(stream);
    begin(frame, stream);
    go_on(graph_, false, stream);
  }

  void enqueue_points(const PointsView& points, const PointCells& cells, void* stream_handle) override {
    const DeviceGuard guard(options_.device);
    const cudaStream_t stream = static_cast<cudaStream_t>(stream_handle);
    throw_pending();
    const bool captured = is_captured(stream);
    prepare_points(captured);
    captured_by_caller_ = captured;
    follow(stream);
    begin(points, cells, stream);
    go_on(point_graph_, true, stream);
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

  std::vector<StageTime> profile(const FrameView& frame, void* stream) override {
    return profiled(false, cudaStream_t(stream), [&] { begin(frame, cudaStream_t(stream)); });
  }

  BufferBytes buffer_bytes() const override {
    BufferBytes bytes = device_.buffer_bytes();
    if (points_) bytes.sites += points_->bytes();
    return bytes;
  }
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

  std::vector<Result> run_points(const PointsView& points, const PointCells& cells,
                                 std::vector<StageTime>* times) override {
    const PointsView view = upload_points(points, nullptr);
    if (times) {
      const DeviceGuard guard(options_.device);
      prepare_points(false);
      *times = profiled(true, nullptr, [&] { begin(view, cells, nullptr); });
    } else {
      enqueue_points(view, cells, nullptr);
    }
    return fetch();
  }

  Voxels voxelize(const PointsView& points, const PointCells& cells) override {
    const DeviceGuard guard(options_.device);
    throw_pending();
    prepare_points(false);
    const cudaStream_t stream = own_;
    captured_by_caller_ = false;
    follow(stream);
    begin(upload_points(points, stream), cells, stream);
    find_voxels(stream);
    clear_sites({device_.sets()[0]}, device_.status(), stream);
    finish(stream);
    unfinished_ = false;
    check(cudaEventRecord(done_, stream), "recording an event");
    synchronize();
    return fetch_voxels(device(), device_.sets()[0], points_->arrays(), points.columns, stream);
  }

  PointsView upload_points(const PointsView& points, void* stream) override {
    PointsView copy = points;
    const Size bytes = Size(points.count) * points.columns * (points.half ? 2 : 4);
    copy.points = staging_.upload(0, points.points, bytes.value(), stream);
    return copy;
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
    return fetch_results(device(), results(), own_);
  }

  ~Executor() override {
    int before = 0;
    cudaGetDevice(&before);
    cudaSetDevice(options_.device);
    cudaDeviceSynchronize();  // kernels in flight use what is freed next
    if (graph_) cudaGraphExecDestroy(graph_);
    if (point_graph_) cudaGraphExecDestroy(point_graph_);
    cudaSetDevice(before);
  }

 private:
  /// Checks what the host knows and tells the device.
  void begin(const FrameView& frame, cudaStream_t stream) {
    const int32_t batch = checked_batch(device_, frame);
    take_batch(device_, batch);
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

  /// The same for points, whose number of sites is found later.
  void begin(const PointsView& points, const PointCells& cells, cudaStream_t stream) {
    const PointFrame made = points_->frame_of(points, cells);
    take_batch(device_, points.batch);
    if (unfinished_) device_.reset_sets(stream);
    unfinished_ = true;
    DeviceFrame view{};
    view.features = points_->arrays().means;
    view.indices = device_.sets()[0].sites;
    view.half = true;
    view.batch = points.batch;
    begin_points(points_->arrays(), made, device_.frame(), view, device_.status(), device_.status_entries(),
                 device_.far_counts().data(), int32_t(device_.far_counts().size()), stream);
  }

  /// Memory and graph of frames of points, once.
  void prepare_points(bool captured) {
    if (points_) return;
    if (captured) {
      fail(ErrorKind::kArgument,
           "The first frame of points takes memory, which a stream that is being captured "
           "does not allow. Run one before the capture.");
    }
    if (options_.max_points < 0)
      fail(ErrorKind::kArgument, "max_points must be at least 1, got ", options_.max_points, ".");
    const ValueSpec& features = plan_.network.values[size_t(plan_.network.features)];
    const int64_t most = options_.max_points ? options_.max_points : kDefaultPoints;
    narrow(most, "max_points");
    points_ = std::make_unique<PointMemory>(most, device_.sets()[0].capacity, features.channels);
    if (!options_.graph) return;
    try {
      point_graph_ = capture(true);
    } catch (...) {
      points_.reset();
      throw;
    }
  }

  bool is_captured(cudaStream_t stream) const {
    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &capturing), "asking about the stream");
    return capturing != cudaStreamCaptureStatusNone;
  }

  /// Frames share the engine's memory: one on another stream must have ended.
  void follow(cudaStream_t stream) {
    if (!captured_by_caller_) check(cudaStreamWaitEvent(stream, done_, 0), "waiting for the last frame");
  }

  /// Everything behind begin().
  void go_on(cudaGraphExec_t graph, bool points, cudaStream_t stream) {
    if (options_.graph && !captured_by_caller_) {
      check(cudaGraphLaunch(graph, stream), "launching the graph");
    } else {
      launch(points, stream, nullptr);
    }
    unfinished_ = false;
    if (!captured_by_caller_) check(cudaEventRecord(done_, stream), "recording an event");
  }

  template <typename Begin>
  std::vector<StageTime> profiled(bool points, cudaStream_t stream, const Begin& begin) {
    const DeviceGuard guard(options_.device);
    throw_pending();
    Stages stages;
    captured_by_caller_ = false;
    follow(stream);
    begin();
    stages.stop("begin", "input", "", stream);
    launch(points, stream, &stages);
    unfinished_ = false;
    check(cudaEventRecord(done_, stream), "recording an event");
    synchronize();
    return stages.times();
  }

  cudaGraphExec_t capture(bool points) {
    const Stream stream;
    cudaGraphExec_t made = nullptr;
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "starting a capture");
    try {
      launch(points, stream, nullptr);
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "ending a capture");
    const cudaError_t status = cudaGraphInstantiate(&made, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "instantiating a graph");
    check(cudaGraphUpload(made, stream), "uploading a graph");
    check(cudaStreamSynchronize(stream), "uploading a graph");
    return made;
  }

  /// Sites of set 0 and the features of the frame, from points that have begun.
  void find_voxels(cudaStream_t stream) {
    const SitesView& set = device_.sets()[0];
    mark_points(points_->arrays(), set, device_.status(), stream);
    rank_sites({set}, device_.status(), stream);
    average_points(points_->arrays(), set, device_.frame(), stream);
  }

  void finish(cudaStream_t stream) {
    publish_failure(device_.frame(), device_.status(), device_.status_entries(),
                    int32_t(device_.sets().size()), device_.site_limits(),
                    reinterpret_cast<FailureHeader*>(failure_.data()), stream);
  }

  /// Everything behind begin(), of voxels or `points`: into a capture, or at once. The sites and maps of
  /// later levels are made beside the layers on the input's sites. With `stages`, nothing runs side by side.
  void launch(bool points, cudaStream_t stream, Stages* stages) {
    const auto stop = [&](const char* kind, const std::string& name, const std::string& kernel = "") {
      if (stages) stages->stop(kind, name, kernel, stream);
    };
    const bool beside = stages == nullptr;
    const std::vector<SitesView>& sets = device_.sets();
    const cudaStream_t side = beside ? cudaStream_t(side_) : stream;
    if (beside) wait_for(side, stream, forked_);
    if (points) {
      mark_points(points_->arrays(), sets[0], device_.status(), stream);
    } else {
      mark_input(device_.frame(), sets[0], device_.status(), stream);
    }
    stop("mark_sites", "input");
    rank_sites({sets[0]}, device_.status(), stream);
    stop("rank_sites", "input");
    if (beside) check(cudaEventRecord(ranked_, stream), "recording an event");
    if (points) {
      average_points(points_->arrays(), sets[0], device_.frame(), stream);
      stop("voxels", "input");
    }
    // The maps are made beside it, though in one stream: a branch of its own costs more than it hides.
    device_.run_step(0, points, stream);
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
    finish(stream);
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
    throw_failure(plan_, device_.sets()[0].capacity, copy, status);
  }

  const Plan& plan_;
  const CudaOptions options_;
  DevicePlan device_;
  Staging staging_;
  MappedArray<char> failure_;
  const Stream side_, own_;
  const Event forked_, ranked_, mapped_, placed_, multiplied_, cleared_, done_;
  cudaGraphExec_t graph_ = nullptr, point_graph_ = nullptr;
  std::unique_ptr<PointMemory> points_;  // from the first frame of points on
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
