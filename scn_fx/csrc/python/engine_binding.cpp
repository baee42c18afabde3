// SPDX-License-Identifier: Apache-2.0
#include "python/engine_binding.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "python/arrays.h"
#include "python/engine_common.h"
#include "python/gil.h"
#include "python/points_binding.h"

namespace scn::python {
namespace {

nb::object attribute_value(const OnnxAttribute& a) {
  switch (a.type) {
    case AttributeType::kFloat:
      return nb::cast(a.f);
    case AttributeType::kInt:
      return nb::cast(a.i);
    case AttributeType::kString:
      return nb::cast(a.s);
    case AttributeType::kFloats:
      return nb::cast(a.floats);
    case AttributeType::kInts:
      return nb::cast(a.ints);
    case AttributeType::kStrings:
      return nb::cast(a.strings);
    default:
      return nb::none();
  }
}

nb::dict info_dict(const PlanInfo& info) {
  nb::dict out;
  out["format"] = info.format;
  out["library"] = info.library;
  out["kind"] = info.kind;
  out["onnx_sha256"] = info.onnx_sha256;
  out["onnx_bytes"] = info.onnx_bytes;
  out["precision"] = info.float32 ? "fp32" : "";
  out["spatial_shape"] = std::vector<int32_t>(info.spatial_shape.begin(), info.spatial_shape.end());
  out["max_batch"] = info.max_batch;
  out["max_sites"] = info.max_sites;
  return out;
}

PlainData describe_model(const ModelSource& source) {
  const OnnxModel model = model_of(source);
  nb::dict opsets, metadata, initializers, out;
  for (const auto& opset : model.opsets) opsets[opset.first.c_str()] = opset.second;
  for (const auto& entry : model.metadata) metadata[entry.first.c_str()] = entry.second;
  nb::list nodes;
  for (const OnnxNode& node : model.nodes) {
    nb::dict attributes, d;
    for (const OnnxAttribute& a : node.attributes) attributes[a.name.c_str()] = attribute_value(a);
    d["name"] = node.name;
    d["op_type"] = node.op_type;
    d["domain"] = node.domain;
    d["inputs"] = node.inputs;
    d["outputs"] = node.outputs;
    d["attributes"] = attributes;
    nodes.append(d);
  }
  for (const auto& entry : model.initializers) {
    nb::dict d;
    d["dtype"] = onnx_type_name(entry.second.data_type);
    d["shape"] = entry.second.dims;
    initializers[entry.first.c_str()] = d;
  }
  out["ir_version"] = model.ir_version;
  out["producer"] =
      model.producer_name + (model.producer_version.empty() ? "" : " " + model.producer_version);
  out["opset"] = opsets;
  out["metadata"] = metadata;
  out["inputs"] = model.inputs;
  out["outputs"] = model.outputs;
  out["nodes"] = nodes;
  out["initializers"] = initializers;
  out["plan"] = model.plan ? nb::object(info_dict(model.plan->info)) : nb::none();
  return out;
}

/// The plan of a file for a backend, which need not be there.
PlainData plan_onnx(const ModelSource& source, const std::string& backend, const std::string& precision,
                    bool trace, const GridSizes& spatial_shape) {
  if (backend != "cpu" && backend != "cuda")
    fail(ErrorKind::kArgument, "backend must be 'cpu' or 'cuda', got '", backend, "'.");
  EngineOptions options = engine_options(precision, trace, spatial_shape, 0);
  options.cuda = backend == "cuda";
  const OnnxModel model = model_of(source);
  return plan_dict(make_plan(model, options, MemoryLimits::of(0, model.buffer.size())), {});
}

/// The plan of an ONNX file, on the CPU or (`device` >= 0) on a GPU.
nb::bytes save_plan_bytes(const nb::bytes& onnx, int device, const std::string& precision,
                          const GridSizes& spatial_shape, int32_t max_batch, int64_t max_sites,
                          int64_t memory_limit) {
  EngineOptions options = engine_options(precision, false, spatial_shape, memory_limit);
  options.cuda = device >= 0;
  if (options.cuda) options.cuda_options = {device, max_batch, max_sites, true};
  std::string made;
  {
    const GilRelease release;
    made = plan_bytes(onnx.c_str(), onnx.size(), options);
  }
  return nb::bytes(made.data(), made.size());
}

class PyEngine {
 public:
  PyEngine(const ModelSource& source, const std::string& precision, int threads, bool trace,
           const GridSizes& spatial_shape, int64_t memory_limit, const PlainGrid& grid) {
    EngineOptions options = engine_options(precision, trace, spatial_shape, memory_limit);
    options.threads = threads;
    options.grid = optional_grid(grid);
    const OnnxModel model = model_of(source);
    const GilRelease release;
    engine_ = std::make_unique<Session>(model, options);
  }

  FrameOutputs run(const Array& features, const Array& indices, int32_t batch_size) {
    std::vector<Result> results = results_of(features, indices, batch_size);
    return outputs_list(engine_->plan(), results);
  }

  PlainRows trace(const Array& features, const Array& indices, int32_t batch_size) {
    check_traces(engine_->plan());
    std::vector<Result> results = results_of(features, indices, batch_size);
    return nodes_list(engine_->plan(), results);
  }

  PlainRows profile(const Array& features, const Array& indices, int32_t batch_size) {
    std::vector<StageTime> times;
    results_of(features, indices, batch_size, &times);
    return stages_list(times);
  }

  FrameOutputs run_points(const Array& points, const std::vector<int64_t>& entries) {
    const PointsView view = points_view(points, entries);
    std::vector<Result> results;
    {
      const GilRelease release;
      results = engine_->run_points(view);
    }
    return outputs_list(engine_->plan(), results);
  }

  VoxelArrays voxelize(const Array& points, const std::vector<int64_t>& entries) {
    return voxelized(*engine_, points_view(points, entries));
  }

  PlainData describe() const { return engine_dict(*engine_); }

  int threads() const { return engine_->threads(); }
  std::string isa() const { return engine_->backend(); }
  int ndim() const { return engine_->plan().network.ndim; }
  bool float32() const { return engine_->float32(); }

 private:
  std::vector<Result> results_of(const Array& features, const Array& indices, int32_t batch_size,
                                 std::vector<StageTime>* times = nullptr) {
    const FrameView frame = frame_view(features, indices, batch_size);
    const GilRelease release;
    return engine_->run(frame, times);
  }

  std::unique_ptr<Session> engine_;
};

}  // namespace

void bind_engine(nb::module_& m) {
  using namespace nb::literals;
  m.def("read_onnx", describe_model, "source"_a,
        "Nodes, attributes and metadata of an ONNX file (path or bytes).");
  m.def("plan_onnx", plan_onnx, "source"_a, "backend"_a, "precision"_a = "", "trace"_a = false,
        "spatial_shape"_a = nb::none(),
        "What `describe` says of an engine on \"cpu\" or \"cuda\" that is not made: no GPU is needed.");
  m.def("plan_bytes", save_plan_bytes, "onnx"_a, "device"_a = -1, "precision"_a = "",
        "spatial_shape"_a = nb::none(), "max_batch"_a = 0, "max_sites"_a = 0, "memory_limit"_a = 0,
        "The plan of the bytes of an ONNX file, for the CPU or (`device` >= 0) for that GPU.");
  nb::class_<PyEngine>(m, "Engine")
      .def(nb::init<const ModelSource&, const std::string&, int, bool, const GridSizes&, int64_t,
                    const PlainGrid&>(),
           "source"_a, "precision"_a = "", "threads"_a = 0, "trace"_a = false, "spatial_shape"_a = nb::none(),
           "memory_limit"_a = 0, "grid"_a = nb::none())
      .def("run", &PyEngine::run, "features"_a, "indices"_a, "batch_size"_a = 0)
      .def("trace", &PyEngine::trace, "features"_a, "indices"_a, "batch_size"_a = 0)
      .def("profile", &PyEngine::profile, "features"_a, "indices"_a, "batch_size"_a = 0)
      .def("run_points", &PyEngine::run_points, "points"_a, "entries"_a,
           "The outputs of points [P, C] of scans with so many points each.")
      .def("voxelize", &PyEngine::voxelize, "points"_a, "entries"_a,
           "What run_points runs: features float16 [N, C], sites int32 [N, 4]; points outside, and surplus "
           "ones.")
      .def("describe", &PyEngine::describe)
      .def_prop_ro("threads", &PyEngine::threads)
      .def_prop_ro("isa", &PyEngine::isa)
      .def_prop_ro("ndim", &PyEngine::ndim)
      .def_prop_ro("float32", &PyEngine::float32);
}

}  // namespace scn::python
