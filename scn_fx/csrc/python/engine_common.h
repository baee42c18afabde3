// SPDX-License-Identifier: Apache-2.0
// What the bindings of the CPU engine and the CUDA engine share.
#pragma once

#include <string>
#include <vector>

#include "engine/session.h"
#include "python/arrays.h"

namespace scn::python {

/// A model from a path or from bytes.
OnnxModel model_of(const nb::object& source);

/// Options common to both; checks them.
EngineOptions engine_options(const std::string& precision, bool trace, const nb::object& spatial_shape,
                             int64_t memory_limit);

/// A frame that refers to the arrays' memory; checks dtypes and shapes.
template <typename A>
FrameView frame_view(const A& features, const A& indices, int32_t batch_size) {
  const bool half = is_float(features, 16);
  if ((!half && !is_float(features, 32)) || features.ndim() != 2) {
    fail(ErrorKind::kSite, "features must be float16 or float32 of shape [N, C], got ", dtype_name(features),
         " ", shape_name(features), ".");
  }
  const int32_t* rows = int32_rows(indices, 4, "indices (batch, z, y, x)");
  if (features.shape(0) != indices.shape(0)) {
    fail(ErrorKind::kSite, "features and indices describe the same sites, but there are ", features.shape(0),
         " features and ", indices.shape(0), " indices.");
  }
  if (batch_size < 0) fail(ErrorKind::kArgument, "batch_size must be at least 1, got ", batch_size, ".");
  return {features.data(),
          half,
          int64_t(features.shape(0)),
          narrow(int64_t(features.shape(1)), "The number of features per site"),
          reinterpret_cast<const Site*>(rows),
          batch_size};
}

/// Position of the file's output `i` among an engine's results: a tracing engine has one result per node.
size_t output_position(const Plan& plan, size_t i);

/// Results of a frame as the file's outputs: arrays, or pairs (features, indices). Takes their memory.
nb::list outputs_list(const Plan& plan, std::vector<Result>& results);

/// Throws unless the plan keeps every node's value.
void check_traces(const Plan& plan);
/// Results of a tracing engine, as one dict per node. Takes their memory.
nb::list nodes_list(const Plan& plan, std::vector<Result>& results);

nb::list stages_list(const std::vector<StageTime>& times);

/// Waits for a frame that runs, without the interpreter's lock.
BufferBytes buffer_bytes_of(const Session& engine);

/// The plan of an engine as plain data, with the kernels that its steps run.
nb::dict engine_dict(const Session& engine);

/// The plan as plain data.
nb::dict plan_dict(const Plan& plan, const BufferBytes& bytes);

}  // namespace scn::python
