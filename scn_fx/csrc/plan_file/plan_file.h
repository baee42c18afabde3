// SPDX-License-Identifier: Apache-2.0
// Plans as files:
//
//   magic        8 bytes
//   format       uint32: kPlanFormat
//   size         uint64, of the whole file
//   description  PlanInfo
//   model        the nodes, see stored_model.h
//   weights      by node, as kernels of the CPU read them (cpu/convolution/stored_weights.h); none on a GPU
//   checksum     uint64: XXH64 of all that comes before
//
// Numbers are little-endian; weights have the byte order of their kind of processor.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "onnx/model.h"
#include "scn_fx/plan.h"

namespace scn {

/// What a model has that comes from a plan.
struct StoredPlan {
  PlanInfo info;
  std::vector<ByteSpan> weights;  // by node, in the model's buffer; empty for other nodes
};

/// Bytes or a file of either kind. Throws kOnnx for what is neither, kPlan for a plan that is damaged or has
/// another format.
OnnxModel parse_model(std::string bytes);
OnnxModel load_model(const std::string& path);

/// The bytes of a plan. `weights`: by node.
std::string plan_file_bytes(const OnnxModel& model, const PlanInfo& info,
                            const std::vector<std::string>& weights);

/// What runs plans of this kind: the processor of `options`; empty where there is no such GPU.
std::string processor_kind(const EngineOptions& options);

/// The options of an engine that runs `model`: for a plan, those that it was made with. Throws kPlan for
/// a plan of another kind of processor, kArgument for options that contradict it.
EngineOptions settled(const OnnxModel& model, const EngineOptions& given);

}  // namespace scn
