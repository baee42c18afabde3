// SPDX-License-Identifier: Apache-2.0
// Runs a plan on a CUDA device: everything is allocated when the executor is made, a frame only enqueues kernels.
#include <algorithm>
#include <climits>
#include <cstring>

#include "cuda/backend.h"
#include "cuda/convolution.h"
#include "cuda/device_guard.h"
#include "cuda/failure.h"
#include "cuda/geometry.h"
#include "cuda/memory.h"
#include "cuda/rows.h"

namespace scn::cuda {
namespace {

GeometryView geometry_view(const ConvGeometry& g) {
  GeometryView v{};
  for (size_t axis = 0; axis < 3; ++axis) {
    v.kernel[axis] = g.kernel[axis];
    v.stride[axis] = g.stride[axis];
    v.padding[axis] = g.padding[axis];
    v.dilation[axis] = g.dilation[axis];
  }
  v.volume = g.volume();
  v.divides = g.transposed != g.inverse;
  return v;
}

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(unsigned flags = cudaEventDisableTiming) {
    check(cudaEventCreateWithFlags(&event_, flags), "creating an event");
  }
  ~Event() {
    if (event_) cudaEventDestroy(event_);
  }
  Event(Event&& other) noexcept { std::swap(event_, other.event_); }
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

void wait_for(cudaStream_t later, cudaStream_t earlier, cudaEvent_t event) {
  check(cudaEventRecord(event, earlier), "recording an event");
  check(cudaStreamWaitEvent(later, event, 0), "waiting for an event");
}

int64_t product(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}

struct SetMemory {
  DeviceArray<RankWord> words;
  DeviceArray<int32_t> line_counts, group_counts, count;
  DeviceArray<Site> sites;
};

struct MapMemory {
  DeviceArray<uint16_t> local;
  DeviceArray<int32_t> list, list_length;
};

class Executor final : public CudaExecutor {
 public:
  Executor(const Plan& plan, const CudaOptions& options)
      : plan_(plan), options_(options), limits_(device_limits(options.device)) {
    const Network& net = plan.network;
    batch_ = options.max_batch ? options.max_batch : std::max(net.batch, 1);
    if (batch_ < 1) fail(ErrorKind::kArgument, "max_batch must be at least 1, got ", batch_, ".");
    prepare_weights_of_layers();
    prepare_sets();
    prepare_maps();
    prepare_storages();
    prepare_dense();
    prepare_results();
    frame_ = DeviceArray<DeviceFrame>(1);
    status_ = DeviceArray<int32_t>(status_entries());
    failure_ = MappedArray<char>(int64_t(sizeof(FailureHeader)) + 4 * status_entries());
    frame_.zero();
    status_.zero();
    check(cudaDeviceSynchronize(), "preparing the engine");
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
      if (!graph_) capture();
      check(cudaGraphLaunch(graph_, stream), "launching the graph");
    } else {
      run(stream, nullptr);
    }
    if (!captured_by_caller_) check(cudaEventRecord(done_, stream), "recording an event");
  }

  const std::vector<DeviceResult>& results() const override { return results_; }

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
    check(cudaMemcpy(&count, result.count, sizeof(count), cudaMemcpyDeviceToHost), "reading a number of sites");
    return count;
  }

  std::vector<StageTime> profile(const FrameView& frame, void* stream_handle) override {
    const DeviceGuard guard(options_.device);
    const cudaStream_t stream = static_cast<cudaStream_t>(stream_handle);
    throw_pending();
    Stages stages;
    check(cudaStreamWaitEvent(stream, done_, 0), "waiting for the last frame");
    begin(frame, stream);
    stages.stop("begin", "input", stream);
    run(stream, &stages);
    check(cudaEventRecord(done_, stream), "recording an event");
    captured_by_caller_ = false;
    synchronize();
    return stages.times();
  }

  BufferBytes buffer_bytes() const override {
    BufferBytes b;
    for (const DeviceWeights& w : weights_) b.weights += w.bytes();
    for (const auto& slot : slots_) b.activations += slot.bytes();
    for (const auto& dense : dense_) b.activations += dense.bytes();
    for (const auto& packed : packed_) b.activations += packed.bytes();
    for (const MapMemory& m : map_memory_) b.kernel_maps += m.local.bytes() + m.list.bytes() + m.list_length.bytes();
    for (const SetMemory& s : set_memory_) {
      b.sites += s.words.bytes() + s.line_counts.bytes() + s.group_counts.bytes() + s.sites.bytes();
    }
    b.sites += row_of_input_.bytes() + packed_sites_.bytes();
    return b;
  }

  int device() const override { return options_.device; }

  ~Executor() override {
    int before = 0;
    cudaGetDevice(&before);
    cudaSetDevice(options_.device);
    cudaDeviceSynchronize();  // kernels in flight use what is freed next
    if (graph_) cudaGraphExecDestroy(graph_);
    cudaSetDevice(before);
  }

 private:
  /// Times of the stages of one frame.
  class Stages {
   public:
    Stages() { events_.emplace_back(cudaEventDefault); }
    void stop(const char* kind, const std::string& name, cudaStream_t stream) {
      if (names_.empty() && !started_) {
        check(cudaEventRecord(events_[0], stream), "recording an event");
        started_ = true;
        return;
      }
      events_.emplace_back(cudaEventDefault);
      check(cudaEventRecord(events_.back(), stream), "recording an event");
      names_.push_back({kind, name, 0.0, 0});
    }
    std::vector<StageTime> times() {
      for (size_t i = 0; i < names_.size(); ++i) {
        float milliseconds = 0.0f;
        check(cudaEventElapsedTime(&milliseconds, events_[i], events_[i + 1]), "reading a time");
        names_[i].seconds = double(milliseconds) * 1e-3;
      }
      return names_;
    }

   private:
    std::vector<Event> events_;
    std::vector<StageTime> names_;
    bool started_ = false;
  };

  int32_t status_entries() const {
    return kFound + int32_t(plan_.network.sets.size()) + 2 * int32_t(plan_.steps.size());
  }
  int32_t* overflow_of(size_t step) const {
    return status_.data() + kFound + plan_.network.sets.size() + 2 * step;
  }

  void prepare_weights_of_layers() {
    const Network& net = plan_.network;
    weights_.resize(net.nodes.size());
    for (size_t i = 0; i < net.nodes.size(); ++i) {
      const NodeSpec& n = net.nodes[i];
      if (n.kind != NodeSpec::Kind::kConvolution) continue;
      const int32_t volume = net.maps[size_t(n.map)].geometry.volume();
      weights_[i] = device_weights({n.weight.data(), n.bias.data(), n.out_channels, volume, n.in_channels, n.precision,
                                    n.amax[0], n.weight_amax.data(), n.name},
                                   limits_);
    }
  }

  void prepare_sets() {
    const Network& net = plan_.network;
    std::vector<int32_t> site_limits;
    int64_t largest = 1;
    for (const MapSpec& map : net.maps) largest = std::max(largest, map.bound);
    for (size_t s = 0; s < net.sets.size(); ++s) {
      const Triple& shape = net.sets[s].shape;
      const int64_t lines = int64_t(batch_) * shape[0] * shape[1], words = (shape[2] + 31) / 32;
      const int64_t cells = lines * shape[2];
      if (lines * words > int64_t(1) << 30 || cells <= 0) {
        fail(ErrorKind::kArgument, "A grid of ", to_string(shape), " with batch ", batch_,
             " has too many cells for the CUDA backend (its bitmaps hold 2^35). Use larger voxels, a smaller range, ",
             "or device='cpu'.");
      }
      int64_t bound = net.sets[s].map >= 0 ? net.maps[size_t(net.sets[s].map)].bound
                                           : options_.max_sites ? options_.max_sites : largest;
      const int64_t capacity = std::max<int64_t>(1, std::min({bound, cells, int64_t(INT_MAX) / 256}));
      for (const MapSpec& map : net.maps) {
        if (map.geometry.subm && map.input_set == int(s)) bound = std::min(bound, map.bound);
      }
      SetMemory m;
      m.words = DeviceArray<RankWord>(lines * words);
      m.line_counts = DeviceArray<int32_t>(lines);
      m.group_counts = DeviceArray<int32_t>((lines + kLinesPerGroup - 1) / kLinesPerGroup);
      m.count = DeviceArray<int32_t>(1);
      m.sites = DeviceArray<Site>(capacity);
      m.words.zero();
      m.line_counts.zero();
      m.group_counts.zero();
      m.count.zero();
      SitesView v{};
      v.words = m.words.data();
      v.line_counts = m.line_counts.data();
      v.group_counts = m.group_counts.data();
      v.sites = m.sites.data();
      v.count = m.count.data();
      v.capacity = int32_t(capacity);
      v.lines = int32_t(lines);
      v.words_per_line = int32_t(words);
      v.batch = batch_;
      std::copy(shape.begin(), shape.end(), v.shape);
      set_memory_.push_back(std::move(m));
      sets_.push_back(v);
      site_limits.push_back(int32_t(std::min<int64_t>(bound, INT_MAX)));
    }
    site_limits_ = to_device(site_limits);
    row_of_input_ = DeviceArray<int32_t>(sets_[0].capacity);
    for (const MapSpec& map : net.maps) {
      if (map.partner >= 0 || map.geometry.subm) continue;
      growths_.push_back({map.input_set, map.output_set, geometry_view(map.geometry)});
    }
  }

  void prepare_maps() {
    const Network& net = plan_.network;
    std::vector<int32_t> row_bytes_of(net.maps.size(), 16);
    for (size_t i = 0; i < net.nodes.size(); ++i) {
      const NodeSpec& n = net.nodes[i];
      if (n.kind == NodeSpec::Kind::kConvolution)
        row_bytes_of[size_t(n.map)] = std::max(row_bytes_of[size_t(n.map)], weights_[i].in_bytes);
    }
    for (size_t i = 0; i < net.maps.size(); ++i) {
      const MapSpec& spec = net.maps[i];
      MapView v{};
      v.geometry = geometry_view(spec.geometry);
      v.input = sets_[size_t(spec.input_set)];
      v.output = sets_[size_t(spec.output_set)];
      const int64_t tiles = (v.output.capacity + kTileRows - 1) / kTileRows;
      v.list_capacity = list_capacity(v.geometry.volume, row_bytes_of[i], limits_);
      MapMemory m;
      m.local = DeviceArray<uint16_t>(tiles * v.geometry.volume * kTileRows);
      m.list = DeviceArray<int32_t>(tiles * v.list_capacity);
      m.list_length = DeviceArray<int32_t>(tiles);
      v.local = m.local.data();
      v.list = m.list.data();
      v.list_length = m.list_length.data();
      map_memory_.push_back(std::move(m));
      maps_.push_back(v);
      (spec.input_set == 0 && spec.output_set == 0 ? first_maps_ : later_maps_).push_back(v);
    }
  }

  static Form form_of(const Storage& s) {
    return s.format == Format::kInt8 ? Form::kInt8 : s.half ? Form::kHalf : Form::kFloat;
  }
  int32_t stride_of(int storage) const {
    const Storage& s = plan_.storages[size_t(storage)];
    return row_bytes(s.channels, form_bytes(form_of(s)));
  }
  char* rows(int storage) const { return slots_[size_t(plan_.storages[size_t(storage)].slot)].data(); }

  void prepare_storages() {
    std::vector<int64_t> bytes(size_t(plan_.slots), 0);
    find_scattered();
    for (size_t i = 0; i < plan_.storages.size(); ++i) {
      if (scattered_[i] >= 0) continue;
      const Storage& s = plan_.storages[i];
      bytes[size_t(s.slot)] =
          std::max(bytes[size_t(s.slot)], int64_t(sets_[size_t(s.set)].capacity) * stride_of(int(i)));
    }
    for (int64_t n : bytes) slots_.emplace_back(n);
  }

  /// Storages that only a ScatterDense reads: the convolution that makes them writes the dense map itself.
  void find_scattered() {
    scattered_.assign(plan_.storages.size(), -1);
    for (size_t s = 0; s < plan_.storages.size(); ++s) {
      int reader = -1, readers = 0;
      for (size_t i = 0; i < plan_.steps.size(); ++i) {
        const Step& step = plan_.steps[i];
        if (step.input != int(s) && step.other != int(s)) continue;
        reader = int(i);
        ++readers;
      }
      for (const PlanOutput& out : plan_.outputs) readers += out.storage == int(s);
      const Step& producer = plan_.steps[size_t(plan_.storages[s].first)];
      if (readers == 1 && reader >= 0 && plan_.steps[size_t(reader)].kind == Step::Kind::kScatterDense &&
          producer.kind == Step::Kind::kConvolution && !plan_.trace) {
        scattered_[s] = reader;
      }
    }
  }

  /// Dims of a dense value with the largest batch.
  std::vector<int64_t> dense_dims(int value) const {
    std::vector<int64_t> dims = plan_.network.values[size_t(value)].dims;
    if (!dims.empty() && dims[0] == plan_.network.batch) dims[0] = batch_;
    return dims;
  }

  void prepare_dense() {
    for (const DenseMap& map : plan_.dense) {
      dense_.emplace_back(product(dense_dims(map.value)) * (map.half ? 2 : 4));
    }
  }

  void prepare_results() {
    const Network& net = plan_.network;
    for (const PlanOutput& output : plan_.outputs) {
      const ValueSpec& value = net.values[size_t(output.value)];
      DeviceResult r;
      r.half = value.half;
      if (output.dense >= 0) {
        r.dims = dense_dims(output.value);
        r.data = dense_[size_t(output.dense)].data();
        packed_.emplace_back();
      } else {
        const Storage& s = plan_.storages[size_t(output.storage)];
        const SitesView& set = sets_[size_t(s.set)];
        packed_.emplace_back(int64_t(set.capacity) * s.channels * (r.half ? 2 : 4));
        r.sparse = true;
        r.dims = {set.capacity, s.channels};
        r.data = packed_.back().data();
        r.count = set.count;
        r.sites = set.sites;
        if (s.set == 0) {
          if (!packed_sites_.size()) packed_sites_ = DeviceArray<Site>(set.capacity);
          r.sites = packed_sites_.data();
        }
      }
      results_.push_back(std::move(r));
    }
  }

  /// Checks what the host knows and tells the device.
  void begin(const FrameView& frame, cudaStream_t stream) {
    const Network& net = plan_.network;
    const ValueSpec& features = net.values[size_t(net.features)];
    if (frame.channels != features.channels) {
      fail(ErrorKind::kSite, "The network reads ", features.channels, " features per site, the frame has ",
           frame.channels, ". Check which columns the model was trained on.");
    }
    if (frame.sites > sets_[0].capacity) {
      const Triple& shape = net.sets[0].shape;
      if (frame.sites > int64_t(batch_) * shape[0] * shape[1] * shape[2]) {
        fail(ErrorKind::kSite, "The input: ", frame.sites, " sites are more than a grid of ", to_string(shape),
             " with batch ", batch_, " has cells, so some are duplicates. Each voxel may occur once.");
      }
      fail(ErrorKind::kBound, "The input: ", frame.sites, " sites, but this engine was made for ", sets_[0].capacity,
           ". Pass a larger max_voxels, or capture the model with a larger output_bound.");
    }
    const int32_t batch = frame.batch ? frame.batch : std::max(net.batch, 1);
    if (batch > batch_) {
      fail(ErrorKind::kArgument, "The frame has batch ", batch, ", but this engine was made for ", batch_,
           ". Pass max_batch_size=", batch, " when making it.");
    }
    for (size_t i = 0; i < plan_.outputs.size(); ++i) {
      const PlanOutput& output = plan_.outputs[i];
      if (output.dense < 0) continue;
      const ValueSpec& value = net.values[size_t(output.value)];
      if (batch != net.batch && (value.dims.empty() || value.dims[0] != net.batch)) {
        fail(ErrorKind::kArgument, value.name,
             ": its shape does not start with the batch, so it only runs with the exported batch of ", net.batch,
             ", not ", batch, ".");
      }
      results_[i].dims[0] = value.dims[0] == net.batch ? batch : value.dims[0];
    }
    DeviceFrame view{};
    view.features = frame.features;
    view.indices = frame.indices;
    view.sites = int32_t(frame.sites);
    view.half = frame.half;
    view.batch = batch;
    begin_frame(frame_.data(), view, status_.data(), status_entries(), stream);
  }

  void capture() {
    const Stream stream;
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "starting a capture");
    try {
      run(stream, nullptr);
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

  /// Everything behind begin(): into a capture, or at once. With `stages`, nothing runs side by side.
  void run(cudaStream_t stream, Stages* stages) {
    const auto stop = [&](const char* kind, const std::string& name) {
      if (stages) stages->stop(kind, name, stream);
    };
    const cudaStream_t side = stages ? stream : cudaStream_t(side_);
    if (!stages) wait_for(side, stream, fork_);
    for (size_t d = 0; d < dense_.size(); ++d) {
      if (!is_scatter_target(int(d))) continue;
      check(cudaMemsetAsync(dense_[d].data(), 0, size_t(dense_[d].bytes()), side), "clearing a dense map");
    }
    stop("clear_dense", "output");
    mark_sites(frame_.data(), sets_, growths_, status_.data(), stream);
    stop("mark_sites", "input");
    rank_sites(sets_, status_.data(), stream);
    stop("rank_sites", "input");
    if (!stages) wait_for(side, stream, ranked_);
    if (!later_maps_.empty()) build_maps(later_maps_, side);
    if (!stages) check(cudaEventRecord(joined_, side), "recording an event");
    stop("kernel_maps", "later");
    if (!first_maps_.empty()) build_maps(first_maps_, stream);
    stop("kernel_maps", "input");
    bool joined = stages != nullptr;
    for (size_t i = 0; i < plan_.steps.size(); ++i) {
      const Step& step = plan_.steps[i];
      if (!joined && needs_side(step)) {
        check(cudaStreamWaitEvent(stream, joined_, 0), "waiting for an event");
        joined = true;
      }
      run_step(i, stream);
      static const char* const kinds[] = {"load", "convolution", "add", "scatter_dense", "transpose"};
      stop(kinds[size_t(step.kind)],
           step.node < 0 ? std::string("input") : plan_.network.nodes[size_t(step.node)].name);
    }
    if (!joined) check(cudaStreamWaitEvent(stream, joined_, 0), "waiting for an event");
    for (size_t i = 0; i < plan_.outputs.size(); ++i) {
      const PlanOutput& output = plan_.outputs[i];
      if (output.storage < 0) continue;
      const Storage& s = plan_.storages[size_t(output.storage)];
      pack_rows(frame_.data(), rows(output.storage), stride_of(output.storage), form_bytes(form_of(s)), s.channels,
                sets_[size_t(s.set)], s.set == 0 ? row_of_input_.data() : nullptr, packed_[i].data(),
                s.set == 0 ? packed_sites_.data() : nullptr, stream);
      stop("results", "output");
    }
    publish_failure(frame_.data(), status_.data(), status_entries(), int32_t(sets_.size()), site_limits_.data(),
                    reinterpret_cast<FailureHeader*>(failure_.data()), stream);
    clear_sites(sets_, status_.data(), stream);
    stop("clear_sites", "input");
  }

  bool is_scatter_target(int dense) const {
    for (const Step& step : plan_.steps) {
      if (step.kind == Step::Kind::kScatterDense && step.dense_out == dense) return true;
    }
    return false;
  }

  /// Whether a step reads what the side stream makes: a later kernel map or a cleared dense map.
  bool needs_side(const Step& step) const {
    if (step.kind == Step::Kind::kScatterDense || step.kind == Step::Kind::kTranspose) return true;
    if (step.kind != Step::Kind::kConvolution) return false;
    for (int s : step.stores) {
      if (scattered_[size_t(s)] >= 0) return true;
    }
    const MapSpec& map = plan_.network.maps[size_t(plan_.network.nodes[size_t(step.node)].map)];
    return map.input_set != 0 || map.output_set != 0;
  }

  EmissionView dense_emission(const Step& scatter) const {
    const NodeSpec& n = plan_.network.nodes[size_t(scatter.node)];
    const ValueSpec& out = plan_.network.values[size_t(n.output)];
    const Storage& s = plan_.storages[size_t(scatter.input)];
    const Triple& shape = plan_.network.sets[size_t(s.set)].shape;
    EmissionView e{};
    e.form = out.half ? Form::kHalf : Form::kFloat;
    e.relu = s.relu;
    e.through_half = s.half;
    e.dense = true;
    e.columns = s.channels;
    e.cells = shape[0] * shape[1] * shape[2];
    e.out = dense_[size_t(scatter.dense_out)].data();
    return e;
  }

  FinishView finish_of(size_t index) const {
    const Step& step = plan_.steps[index];
    FinishView f{};
    f.overflow = overflow_of(index);
    if (step.stores.size() > size_t(kMaxEmissions)) {
      fail(ErrorKind::kArgument, plan_.network.nodes[size_t(step.node)].name, ": its result is read in ",
           step.stores.size(), " different forms (ranges), the CUDA backend stores up to ", kMaxEmissions,
           ". Calibrate its consumers with one range, or run it on the CPU.");
    }
    for (int id : step.stores) {
      const Storage& s = plan_.storages[size_t(id)];
      EmissionView& e = f.emissions[f.emission_count++];
      if (scattered_[size_t(id)] >= 0) {
        e = dense_emission(plan_.steps[size_t(scattered_[size_t(id)])]);
        continue;
      }
      e.form = form_of(s);
      e.relu = s.relu;
      e.through_half = s.half;
      e.factor = s.format == Format::kInt8 ? 127.0f / s.amax : 0.0f;
      e.stride = stride_of(id);
      e.columns = e.stride / form_bytes(e.form);
      e.out = rows(id);
    }
    return f;
  }

  ResidualView residual_of(const Step& step, const NodeSpec& add) const {
    const Storage& other = plan_.storages[size_t(step.other)];
    ResidualView r{};
    r.other = rows(step.other);
    r.stride = stride_of(step.other);
    r.self_is_second = step.self_is_second;
    if (add.precision == Precision::kInt8) {
      const float self_amax = add.amax[step.self_is_second], other_amax = add.amax[!step.self_is_second];
      r.kind = Operand::kInt8;
      r.self_factor = 127.0f / self_amax;
      r.self_scale = self_amax / 127.0f;
      r.other_scale = other_amax / 127.0f;
    } else {
      r.kind = form_of(other) == Form::kHalf ? Operand::kHalf : Operand::kFloat;
      r.through_half = add.precision == Precision::kFloat16;
    }
    return r;
  }

  void run_step(size_t index, cudaStream_t stream) {
    const Step& step = plan_.steps[index];
    switch (step.kind) {
      case Step::Kind::kLoad: {
        FinishView f = finish_of(index);
        f.channels = plan_.network.values[size_t(plan_.network.features)].channels;
        return load_rows(frame_.data(), sets_[0], f.channels, f, row_of_input_.data(), status_.data(), stream);
      }
      case Step::Kind::kConvolution: {
        const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
        FinishView f = finish_of(index);
        f.relu = n.relu;
        f.channels = n.out_channels;
        if (step.add >= 0) {
          f.through_half = n.output_precision == Precision::kFloat16;
          f.residual = residual_of(step, plan_.network.nodes[size_t(step.add)]);
        }
        return convolve(maps_[size_t(n.map)], rows(step.input), weights_[size_t(step.node)], f, limits_, stream);
      }
      case Step::Kind::kAdd: {
        const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
        const Storage& self = plan_.storages[size_t(step.input)];
        FinishView f = finish_of(index);
        f.channels = self.channels;
        f.residual = residual_of(step, n);
        const Operand kind = form_of(self) == Form::kInt8 ? Operand::kInt8
                             : form_of(self) == Form::kHalf ? Operand::kHalf
                                                            : Operand::kFloat;
        return add_rows(rows(step.input), kind, stride_of(step.input), sets_[size_t(self.set)], f, stream);
      }
      case Step::Kind::kScatterDense: {
        if (scattered_[size_t(step.input)] >= 0) return;  // the convolution has done it
        const Storage& s = plan_.storages[size_t(step.input)];
        return scatter_rows(rows(step.input), stride_of(step.input), dense_emission(step), sets_[size_t(s.set)],
                            stream);
      }
      case Step::Kind::kTranspose:
        return transpose(step, stream);
    }
  }

  void transpose(const Step& step, cudaStream_t stream) const {
    const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
    const std::vector<int64_t> dims = dense_dims(n.inputs[0]);
    if (dims.size() > size_t(TransposeView::kMaxAxes)) {
      fail(ErrorKind::kArgument, n.name, ": the CUDA backend transposes up to ", TransposeView::kMaxAxes,
           " axes, this has ", dims.size(), ".");
    }
    TransposeView v{};
    v.axes = int32_t(dims.size());
    v.element = plan_.network.values[size_t(n.output)].half ? 2 : 4;
    v.count = product(dims);
    std::vector<int64_t> strides(dims.size(), 1);
    for (size_t axis = dims.size() - 1; axis-- > 0;) strides[axis] = strides[axis + 1] * dims[axis + 1];
    for (size_t axis = 0; axis < dims.size(); ++axis) {
      v.out_dims[axis] = dims[size_t(n.dims[axis])];
      v.in_strides[axis] = strides[size_t(n.dims[axis])];
    }
    transpose_dense(dense_[size_t(step.dense_in)].data(), dense_[size_t(step.dense_out)].data(), v, stream);
  }

  /// Throws if a frame went wrong that has ended by now.
  void throw_pending() {
    volatile FailureHeader* const header = reinterpret_cast<volatile FailureHeader*>(failure_.data());
    if (!header->set) return;
    FailureHeader copy{};
    std::memcpy(&copy, failure_.data(), sizeof(copy));
    std::vector<int32_t> status(static_cast<size_t>(status_entries()));
    std::memcpy(status.data(), failure_.data() + sizeof(copy), status.size() * 4);
    header->set = 0;
    throw_failure(plan_, copy, status);
  }

  const Plan& plan_;
  const CudaOptions options_;
  const DeviceLimits limits_;
  int32_t batch_ = 1;
  std::vector<DeviceWeights> weights_;  // by node
  std::vector<SetMemory> set_memory_;
  std::vector<SitesView> sets_;
  DeviceArray<int32_t> site_limits_;  // by set
  std::vector<Growth> growths_;
  std::vector<MapMemory> map_memory_;
  std::vector<MapView> maps_, first_maps_, later_maps_;
  std::vector<int> scattered_;  // by storage: the ScatterDense step that its producer takes over, or -1
  std::vector<DeviceArray<char>> slots_, dense_, packed_;
  DeviceArray<int32_t> row_of_input_;
  DeviceArray<Site> packed_sites_;
  DeviceArray<DeviceFrame> frame_;
  DeviceArray<int32_t> status_;
  MappedArray<char> failure_;
  std::vector<DeviceResult> results_;
  const Stream side_;
  const Event fork_, ranked_, joined_, done_;
  cudaGraphExec_t graph_ = nullptr;
  bool captured_by_caller_ = false;
};

}  // namespace
}  // namespace scn::cuda

namespace scn {

std::unique_ptr<CudaExecutor> make_cuda_executor(const Plan& plan, const CudaOptions& options) {
  const cuda::DeviceGuard guard(options.device);
  return std::make_unique<cuda::Executor>(plan, options);
}

}  // namespace scn
