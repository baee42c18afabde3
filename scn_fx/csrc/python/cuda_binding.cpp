// SPDX-License-Identifier: Apache-2.0
#include "python/cuda_binding.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "cuda/backend.h"
#include "python/arrays.h"
#include "python/engine_common.h"
#include "python/gil.h"
#include "python/points_binding.h"

namespace scn::python {
namespace {

PlainData info_dict() {
  const CudaInfo info = cuda_info();
  nb::list devices;
  for (const CudaInfo::Device& device : info.devices) {
    nb::dict d;
    d["name"] = device.name;
    d["architecture"] = device.architecture;
    d["memory"] = device.memory;
    d["multiprocessors"] = device.multiprocessors;
    d["fits"] = device.fits;
    devices.append(d);
  }
  nb::dict out;
  out["built"] = info.built;
  out["compiler"] = info.compiler;
  out["architectures"] = info.architectures;
  out["ptx"] = info.ptx;
  out["driver"] = info.driver;
  out["devices"] = devices;
  out["problem"] = info.problem;
  return out;
}

std::string place_name(const AnyArray& a) {
  switch (a.device_type()) {
    case nb::device::cpu::value:
      return "the CPU";
    case nb::device::cuda::value:
    case nb::device::cuda_managed::value:
      return "cuda:" + std::to_string(a.device_id());
    default:
      return "a device of DLPack type " + std::to_string(a.device_type());
  }
}

bool is_contiguous(const AnyArray& a) {
  int64_t expected = 1;
  for (size_t i = a.ndim(); i-- > 0;) {
    if (a.shape(i) > 1 && a.stride(i) != expected) return a.size() == 0;
    expected *= int64_t(a.shape(i));
  }
  return true;
}

class PyCudaEngine {
 public:
  PyCudaEngine(const ModelSource& source, const std::string& precision, int device, int32_t max_batch,
               int64_t max_sites, bool graph, bool trace, const GridSizes& spatial_shape,
               int64_t memory_limit, int64_t max_points, const PlainGrid& grid) {
    EngineOptions options = engine_options(precision, trace, spatial_shape, memory_limit);
    options.cuda = true;
    options.cuda_options = {device, max_batch, max_sites, max_points, graph};
    options.grid = optional_grid(grid);
    const OnnxModel model = model_of(source);
    const GilRelease release;
    engine_ = std::make_unique<Session>(model, options);
  }

  void enqueue(const AnyArray& features, const AnyArray& indices, int32_t batch_size, uintptr_t stream) {
    const FrameView frame = frame_view(features, indices, batch_size);
    const bool host = on_host(features, indices);
    const GilRelease release;
    if (host) {
      engine_->enqueue_host(frame, to_stream(stream));
    } else {
      engine_->enqueue(frame, to_stream(stream));
    }
  }

  /// The same for a frame in this device's memory whose arrays the caller has checked: addresses of
  /// contiguous float16 (`half`) or float32 features and of int32 indices.
  void enqueue_at(uintptr_t features, uintptr_t indices, int64_t sites, int64_t channels, bool half,
                  uintptr_t stream, int32_t batch_size) {
    if (batch_size < 0) fail(ErrorKind::kArgument, "batch_size must be at least 1, got ", batch_size, ".");
    const GilRelease release;
    engine_->enqueue({reinterpret_cast<const void*>(features), half, sites, narrow(channels, "channels"),
                      reinterpret_cast<const Site*>(indices), batch_size},
                     to_stream(stream));
  }

  void enqueue_points(const AnyArray& points, const std::vector<int64_t>& entries, uintptr_t stream) {
    const PointsView view = points_view(points, entries);
    check_place(points, "points");
    const bool host = is_host(points);
    const GilRelease release;
    if (host) {
      engine_->enqueue_host_points(view, to_stream(stream));
    } else {
      engine_->enqueue_points(view, to_stream(stream));
    }
  }

  /// The same for points in this device's memory whose array the caller has checked, see enqueue_at.
  void enqueue_points_at(uintptr_t points, int64_t count, int64_t columns, bool half,
                         const std::vector<int64_t>& entries, uintptr_t stream) {
    PointsView view;
    view.points = reinterpret_cast<const void*>(points);
    view.half = half;
    view.count = count;
    view.columns = narrow(columns, "columns");
    view.entries = entries.data();
    view.batch = narrow(int64_t(entries.size()), "The number of scans");
    const GilRelease release;
    engine_->enqueue_points(view, to_stream(stream));
  }

  VoxelArrays voxelize(const Array& points, const std::vector<int64_t>& entries) {
    return voxelized(*engine_, points_view(points, entries));
  }

  /// Outputs in device memory. Views keep the engine alive; copies own their memory.
  nb::typed<nb::list, AnyPython> results(bool copy) {
    nb::list out;
    const Plan& plan = engine_->plan();
    for (size_t i = 0; i < plan.network.outputs.size(); ++i) {
      const DeviceResult& result = engine_->device().results()[output_position(plan, i)];
      const nb::dlpack::dtype dtype = float_dtype(result.half ? 16 : 32);
      if (!result.sparse) {
        out.append(array(result.data, result.dims, dtype, copy));
        continue;
      }
      std::vector<int64_t> dims = result.dims;
      dims[0] = sites_of(result);
      nb::object values = array(result.data, dims, dtype, copy);
      void* rows = const_cast<Site*>(result.sites);
      out.append(nb::make_tuple(values, array(rows, {dims[0], 4}, nb::dtype<int32_t>(), copy)));
    }
    return out;
  }

  FrameOutputs to_host() {
    std::vector<Result> results = fetch();
    return outputs_list(engine_->plan(), results);
  }

  PlainRows trace(const AnyArray& features, const AnyArray& indices, int32_t batch_size, uintptr_t stream) {
    check_traces(engine_->plan());
    enqueue(features, indices, batch_size, stream);
    std::vector<Result> results = fetch();
    return nodes_list(engine_->plan(), results);
  }

  PlainRows profile(const AnyArray& features, const AnyArray& indices, int32_t batch_size, uintptr_t stream) {
    const FrameView frame = frame_view(features, indices, batch_size);
    const bool host = on_host(features, indices);
    std::vector<StageTime> times;
    {
      const GilRelease release;
      times = engine_->profile(host ? engine_->upload(frame, to_stream(stream)) : frame, to_stream(stream));
    }
    return stages_list(times);
  }

  void synchronize() {
    const GilRelease release;
    engine_->device().synchronize();
  }

  void order(uintptr_t earlier, uintptr_t later) {
    cuda_order(device(), to_stream(earlier), to_stream(later));
  }

  PlainData describe() const { return engine_dict(*engine_); }
  int device() const { return engine_->device().device(); }
  int ndim() const { return engine_->plan().network.ndim; }
  bool float32() const { return engine_->float32(); }

 private:
  static void* to_stream(uintptr_t stream) { return reinterpret_cast<void*>(stream); }

  static bool is_host(const AnyArray& array) { return array.device_type() == nb::device::cpu::value; }

  /// Throws unless an array lies where this engine can read it.
  void check_place(const AnyArray& array, const char* what) const {
    const std::string place = place_name(array), here = "cuda:" + std::to_string(device());
    if (place != "the CPU" && place != here) {
      fail(ErrorKind::kSite, what, " lie on ", place, ", but this engine runs on ", here,
           ". Move them there, or make an engine for that device.");
    }
    if (!is_contiguous(array)) {
      fail(ErrorKind::kSite, what, " ", shape_name(array),
           " must be contiguous in C order. Make a contiguous copy first.");
    }
  }

  /// Whether a frame lies in host memory; throws unless it lies in one place, which this engine can read.
  bool on_host(const AnyArray& features, const AnyArray& indices) const {
    const bool host = is_host(features);
    check_place(features, "features");
    check_place(indices, "indices");
    if (place_name(features) != place_name(indices)) {
      fail(ErrorKind::kSite, "features lie on ", place_name(features), ", but indices on ",
           place_name(indices), ". Move them to one device.");
    }
    return host;
  }

  std::vector<Result> fetch() {
    const GilRelease release;
    return engine_->fetch();
  }

  int64_t sites_of(const DeviceResult& result) {
    const GilRelease release;
    return engine_->device().sites_of(result);
  }

  nb::object array(void* data, const std::vector<int64_t>& dims, nb::dlpack::dtype dtype, bool copy) {
    const std::vector<size_t> shape(dims.begin(), dims.end());
    nb::object owner = nb::find(this);
    if (copy) {
      const Size bytes = Size::of(dims) * (dtype.bits / 8);
      data = cuda_copy(device(), data, bytes.value(), engine_->stream());
      owner = nb::capsule(new Copy{device(), data}, [](void* p) noexcept {
        const Copy* mine = static_cast<const Copy*>(p);
        cuda_free(mine->device, mine->data);
        delete mine;
      });
    }
    return nb::cast(nb::ndarray<>(data, shape.size(), shape.data(), owner, nullptr, dtype,
                                  nb::device::cuda::value, device()));
  }

  struct Copy {
    int device;
    void* data;
  };

  std::unique_ptr<Session> engine_;
};

}  // namespace

void bind_cuda(nb::module_& m) {
  using namespace nb::literals;
  m.def("cuda_info", info_dict, "CUDA in this build, the driver and its devices; why none can be used.");
  nb::class_<PyCudaEngine>(
      m, "CudaEngine",
      "`features` and `indices` are numpy or CUDA arrays (DLPack); `stream` is a cudaStream_t as a number.")
      .def(nb::init<const ModelSource&, const std::string&, int, int32_t, int64_t, bool, bool,
                    const GridSizes&, int64_t, int64_t, const PlainGrid&>(),
           "source"_a, "precision"_a = "", "device"_a = 0, "max_batch"_a = 0, "max_sites"_a = 0,
           "graph"_a = true, "trace"_a = false, "spatial_shape"_a = nb::none(), "memory_limit"_a = 0,
           "max_points"_a = 0, "grid"_a = nb::none())
      .def("enqueue", &PyCudaEngine::enqueue, "features"_a, "indices"_a, "batch_size"_a = 0, "stream"_a = 0)
      .def("enqueue_at", &PyCudaEngine::enqueue_at, "features"_a, "indices"_a, "sites"_a, "channels"_a,
           "half"_a, "stream"_a, "batch_size"_a = 0,
           "The same for addresses in this GPU's memory, of arrays in C order that have been checked: "
           "float16\n"
           "(`half`) or float32 features [sites, channels], int32 indices [sites, 4].")
      .def("enqueue_points", &PyCudaEngine::enqueue_points, "points"_a, "entries"_a, "stream"_a = 0,
           "Points [P, C] of scans with so many points each.")
      .def("enqueue_points_at", &PyCudaEngine::enqueue_points_at, "points"_a, "count"_a, "columns"_a,
           "half"_a, "entries"_a, "stream"_a, "The same for an address, as of enqueue_at.")
      .def("voxelize", &PyCudaEngine::voxelize, "points"_a, "entries"_a,
           "What enqueue_points runs, see Engine.voxelize; for points in host memory.")
      .def("results", &PyCudaEngine::results, "copy"_a = false,
           "Outputs of the frame enqueued last: DLPack objects, or pairs of them (that waits).")
      .def("to_host", &PyCudaEngine::to_host, "Waits for the frame enqueued last.")
      .def("trace", &PyCudaEngine::trace, "features"_a, "indices"_a, "batch_size"_a = 0, "stream"_a = 0)
      .def("profile", &PyCudaEngine::profile, "features"_a, "indices"_a, "batch_size"_a = 0, "stream"_a = 0)
      .def("synchronize", &PyCudaEngine::synchronize)
      .def("order", &PyCudaEngine::order, "earlier"_a, "later"_a,
           "Makes the stream `later` wait for what has been enqueued on the stream `earlier`.")
      .def("describe", &PyCudaEngine::describe)
      .def_prop_ro("device", &PyCudaEngine::device)
      .def_prop_ro("ndim", &PyCudaEngine::ndim)
      .def_prop_ro("float32", &PyCudaEngine::float32);
}

}  // namespace scn::python
