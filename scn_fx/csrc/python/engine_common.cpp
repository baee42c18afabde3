// SPDX-License-Identifier: Apache-2.0
#include "python/engine_common.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "core/activation_info.h"
#include "python/gil.h"

namespace scn::python {
namespace {

nb::object values_of(Result& r) {
  return to_numpy(std::move(r.data), std::vector<size_t>(r.dims.begin(), r.dims.end()),
                  float_dtype(r.half ? 16 : 32));
}

nb::object sites_of(const Result& r) {
  std::unique_ptr<int32_t[]> rows(new int32_t[(Size(r.sites.size()) * 4).count()]);
  if (!r.sites.empty()) std::memcpy(rows.get(), r.sites.data(), r.sites.size() * sizeof(Site));
  return int32_array(std::move(rows), r.sites.size(), 4);
}

}  // namespace

OnnxModel model_of(const nb::object& source) {
  if (nb::isinstance<nb::bytes>(source)) {
    const nb::bytes bytes = nb::cast<nb::bytes>(source);
    return parse_model(std::string(bytes.c_str(), bytes.size()));
  }
  // as the file system has it: names need not be UTF-8
  const nb::object path = nb::steal(PyUnicode_EncodeFSDefault(nb::str(source).ptr()));
  if (!path.is_valid()) throw nb::python_error();
  return load_model(nb::cast<nb::bytes>(path).c_str());
}

EngineOptions engine_options(const std::string& precision, bool trace, const nb::object& spatial_shape,
                             int64_t memory_limit) {
  if (!precision.empty() && precision != "fp32") {
    fail(ErrorKind::kArgument,
         "precision must be 'fp32' (run everything in float32) or empty (the precisions of the file), got '",
         precision, "'.");
  }
  EngineOptions options;
  options.float32 = precision == "fp32";
  options.trace = trace;
  options.memory_limit = memory_limit;
  if (!spatial_shape.is_none())
    options.spatial_shape = triple(nb::cast<std::vector<int32_t>>(spatial_shape), "spatial_shape");
  return options;
}

size_t output_position(const Plan& plan, size_t i) {
  return plan.trace ? size_t(plan.network.values[size_t(plan.network.outputs[i])].producer) : i;
}

nb::list outputs_list(const Plan& plan, std::vector<Result>& results) {
  nb::list out;
  for (size_t i = 0; i < plan.network.outputs.size(); ++i) {
    Result& r = results[output_position(plan, i)];
    if (r.sparse) {
      nb::object sites = sites_of(r);
      out.append(nb::make_tuple(values_of(r), sites));
    } else {
      out.append(values_of(r));
    }
  }
  return out;
}

void check_traces(const Plan& plan) {
  if (!plan.trace)
    fail(ErrorKind::kArgument, "Only an engine made with trace=True keeps the values of its nodes.");
}

nb::list nodes_list(const Plan& plan, std::vector<Result>& results) {
  nb::list out;
  for (size_t i = 0; i < results.size(); ++i) {
    Result& r = results[i];
    nb::dict d;
    d["name"] = plan.network.nodes[i].name;
    d["op_type"] = plan.network.nodes[i].op_type;
    d["indices"] = r.sparse ? sites_of(r) : nb::none();
    d["values"] = values_of(r);
    out.append(d);
  }
  return out;
}

nb::list stages_list(const std::vector<StageTime>& times) {
  nb::list out;
  for (const StageTime& t : times) {
    nb::dict d;
    d["kind"] = t.kind;
    d["name"] = t.name;
    d["seconds"] = t.seconds;
    d["macs"] = t.macs;
    d["kernel"] = t.kernel;
    out.append(d);
  }
  return out;
}

namespace {

/// A stored form: what the values are, and where they lie.
nb::dict form_dict(const Plan& plan, const Emission& e) {
  nb::dict form;
  form["format"] = e.type == ElementType::kInt8 ? "int8" : e.rounds ? "fp16" : "fp32";
  form["activation"] = info_of(e.activation.kind).name;
  form["channels"] = e.rows.channels;
  if (e.affine >= 0) form["affine"] = plan.network.nodes[size_t(e.affine)].name;
  if (e.rows) {
    const Storage& storage = plan.storage_of(e.rows);
    form["slot"] = storage.slot;
    form["column"] = e.rows.column;
    if (e.type == ElementType::kInt8) form["dynamic_range"] = storage.amax;
  } else {
    form["dense"] = true;
  }
  return form;
}

}  // namespace

BufferBytes buffer_bytes_of(const Session& engine) {
  const GilRelease release;
  return engine.buffer_bytes();
}

nb::dict engine_dict(const Session& engine) {
  nb::dict out = plan_dict(engine.plan(), buffer_bytes_of(engine));
  const nb::list steps = nb::cast<nb::list>(out["steps"]);
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::string kernel = engine.kernel_of(i);
    if (!kernel.empty()) steps[i]["kernel"] = kernel;
  }
  return out;
}

nb::dict plan_dict(const Plan& plan, const BufferBytes& bytes) {
  nb::list steps, maps;
  for (const Step& s : plan.steps) {
    nb::dict d;
    d["kind"] = step_kind(s);
    d["name"] = s.node < 0 ? std::string("input") : plan.network.nodes[size_t(s.node)].name;
    if (s.node >= 0) d["precision"] = element_name(plan.network.nodes[size_t(s.node)].precision);
    if (s.epilogue.residual && s.epilogue.residual.node != s.node)
      d["fused_add"] = plan.network.nodes[size_t(s.epilogue.residual.node)].name;
    nb::list stores;
    for (const Emission& e : s.epilogue.emissions) stores.append(form_dict(plan, e));
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

}  // namespace scn::python
