// SPDX-License-Identifier: Apache-2.0
#include "python/engine_binding.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "engine.h"
#include "python/arrays.h"

namespace scn::python {
namespace {

OnnxModel model_of(const nb::object& source) {
  if (nb::isinstance<nb::bytes>(source)) {
    const nb::bytes bytes = nb::cast<nb::bytes>(source);
    return parse_onnx(std::string(bytes.c_str(), bytes.size()));
  }
  return load_onnx(nb::cast<std::string>(nb::str(source)));
}

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

nb::dict describe_model(const nb::object& source) {
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
    const int32_t type = entry.second.data_type;
    d["dtype"] = type == kOnnxFloat16 ? "float16"
                 : type == kOnnxFloat ? "float32"
                                      : "ONNX type " + std::to_string(type);
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
  return out;
}

nb::object values_of(Result& r) {
  return to_numpy(std::move(r.data), std::vector<size_t>(r.dims.begin(), r.dims.end()),
                  float_dtype(r.half ? 16 : 32));
}

nb::object sites_of(const Result& r) {
  std::unique_ptr<int32_t[]> rows(new int32_t[r.sites.size() * 4]);
  if (!r.sites.empty()) std::memcpy(rows.get(), r.sites.data(), r.sites.size() * sizeof(Site));
  return int32_array(std::move(rows), r.sites.size(), 4);
}

class PyEngine {
 public:
  PyEngine(const nb::object& source, const std::string& precision, int threads, bool trace,
           const nb::object& spatial_shape) {
    EngineOptions options;
    if (!precision.empty() && precision != "fp32") {
      fail(
          ErrorKind::kArgument,
          "precision must be 'fp32' (run everything in float32) or empty (the precisions of the file), got '",
          precision, "'.");
    }
    options.float32 = precision == "fp32";
    options.threads = threads;
    options.trace = trace;
    if (!spatial_shape.is_none())
      options.spatial_shape = triple(nb::cast<std::vector<int32_t>>(spatial_shape), "spatial_shape");
    engine_ = std::make_unique<Engine>(model_of(source), options);
  }

  nb::list run(const Array& features, const Array& indices, int32_t batch_size) {
    std::vector<Result> results = results_of(features, indices, batch_size);
    nb::list out;
    const Plan& plan = engine_->plan();
    for (size_t i = 0; i < plan.network.outputs.size(); ++i) {
      // A tracing engine has one result per node, any other one per output.
      const int producer = plan.network.values[size_t(plan.network.outputs[i])].producer;
      Result& r = results[plan.trace ? size_t(producer) : i];
      if (r.sparse) {
        nb::object sites = sites_of(r);
        out.append(nb::make_tuple(values_of(r), sites));
      } else {
        out.append(values_of(r));
      }
    }
    return out;
  }

  nb::list trace(const Array& features, const Array& indices, int32_t batch_size) {
    const Plan& plan = engine_->plan();
    if (!plan.trace)
      fail(ErrorKind::kArgument, "Only an engine made with trace=True keeps the values of its nodes.");
    std::vector<Result> results = results_of(features, indices, batch_size);
    static const char* const kinds[] = {"SparseConvolution", "Add",     "Relu",
                                        "ScatterDense",      "Reshape", "Transpose"};
    nb::list out;
    for (size_t i = 0; i < results.size(); ++i) {
      Result& r = results[i];
      nb::dict d;
      d["name"] = plan.network.nodes[i].name;
      d["op_type"] = kinds[size_t(plan.network.nodes[i].kind)];
      d["indices"] = r.sparse ? sites_of(r) : nb::none();
      d["values"] = values_of(r);
      out.append(d);
    }
    return out;
  }

  nb::list profile(const Array& features, const Array& indices, int32_t batch_size) {
    std::vector<StageTime> times;
    results_of(features, indices, batch_size, &times);
    nb::list out;
    for (const StageTime& t : times) {
      nb::dict d;
      d["kind"] = t.kind;
      d["name"] = t.name;
      d["seconds"] = t.seconds;
      d["macs"] = t.macs;
      out.append(d);
    }
    return out;
  }

  nb::dict describe() const {
    const Plan& plan = engine_->plan();
    static const char* const kinds[] = {"load", "convolution", "add", "scatter_dense", "transpose"};
    nb::list steps, maps;
    for (const Step& s : plan.steps) {
      nb::dict d;
      d["kind"] = kinds[size_t(s.kind)];
      d["name"] = s.node < 0 ? std::string("input") : plan.network.nodes[size_t(s.node)].name;
      if (s.node >= 0) d["precision"] = precision_name(plan.network.nodes[size_t(s.node)].precision);
      if (s.add >= 0) d["fused_add"] = plan.network.nodes[size_t(s.add)].name;
      nb::list stores;
      for (int id : s.stores) {
        const Storage& storage = plan.storages[size_t(id)];
        nb::dict form;
        form["format"] = storage.format == Format::kInt8 ? "int8" : storage.half ? "fp16" : "fp32";
        form["relu"] = storage.relu;
        form["channels"] = storage.channels;
        form["slot"] = storage.slot;
        if (storage.format == Format::kInt8) form["dynamic_range"] = storage.amax;
        stores.append(form);
      }
      d["stores"] = stores;
      steps.append(d);
    }
    for (const MapSpec& m : plan.network.maps) {
      nb::dict d;
      d["layer"] = m.layer;
      d["rulebook"] = m.rulebook;
      d["offsets"] = m.geometry.volume();
      d["output_bound"] = m.bound;
      d["input_spatial_shape"] =
          std::vector<int32_t>(m.geometry.input_shape.begin(), m.geometry.input_shape.end());
      d["output_spatial_shape"] =
          std::vector<int32_t>(m.geometry.output_shape.begin(), m.geometry.output_shape.end());
      maps.append(d);
    }
    nb::dict out;
    out["steps"] = steps;
    out["kernel_maps"] = maps;
    const BufferBytes bytes = engine_->executor().buffer_bytes();
    nb::dict buffers;
    buffers["weights"] = bytes.weights;
    buffers["activations"] = bytes.activations;
    buffers["kernel_maps"] = bytes.kernel_maps;
    buffers["sites"] = bytes.sites;
    out["buffer_bytes"] = buffers;
    out["slots"] = plan.slots;
    out["input_channels"] = plan.network.values[size_t(plan.network.features)].channels;
    out["batch_size"] = plan.network.batch;
    return out;
  }

  int threads() const { return engine_->executor().threads(); }
  std::string isa() const { return engine_->executor().isa(); }

 private:
  std::vector<Result> results_of(const Array& features, const Array& indices, int32_t batch_size,
                                 std::vector<StageTime>* times = nullptr) {
    const bool half = is_float(features, 16);
    if ((!half && !is_float(features, 32)) || features.ndim() != 2) {
      fail(ErrorKind::kSite, "features must be float16 or float32 of shape [N, C], got ",
           dtype_name(features), " ", shape_name(features), ".");
    }
    const int32_t* rows = int32_rows(indices, 4, "indices (batch, z, y, x)");
    if (features.shape(0) != indices.shape(0)) {
      fail(ErrorKind::kSite, "features and indices describe the same sites, but there are ",
           features.shape(0), " features and ", indices.shape(0), " indices.");
    }
    if (batch_size < 0) fail(ErrorKind::kArgument, "batch_size must be at least 1, got ", batch_size, ".");
    FrameView frame{features.data(),
                    half,
                    int64_t(features.shape(0)),
                    int32_t(features.shape(1)),
                    reinterpret_cast<const Site*>(rows),
                    batch_size};
    nb::gil_scoped_release release;
    return engine_->run(frame, times);
  }

  std::unique_ptr<Engine> engine_;
};

}  // namespace

void bind_engine(nb::module_& m) {
  using namespace nb::literals;
  m.def("read_onnx", describe_model, "source"_a,
        "Nodes, attributes and metadata of an ONNX file (path or bytes).");
  nb::class_<PyEngine>(m, "Engine")
      .def(nb::init<const nb::object&, const std::string&, int, bool, const nb::object&>(), "source"_a,
           "precision"_a = "", "threads"_a = 0, "trace"_a = false, "spatial_shape"_a = nb::none())
      .def("run", &PyEngine::run, "features"_a, "indices"_a, "batch_size"_a = 0)
      .def("trace", &PyEngine::trace, "features"_a, "indices"_a, "batch_size"_a = 0)
      .def("profile", &PyEngine::profile, "features"_a, "indices"_a, "batch_size"_a = 0)
      .def("describe", &PyEngine::describe)
      .def_prop_ro("threads", &PyEngine::threads)
      .def_prop_ro("isa", &PyEngine::isa);
}

}  // namespace scn::python
