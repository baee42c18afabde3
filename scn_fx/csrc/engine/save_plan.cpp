// SPDX-License-Identifier: Apache-2.0
// From an ONNX file to a plan.
#include <utility>
#include <vector>

#include "core/sha256.h"
#include "cpu/convolution/stored_weights.h"
#include "engine/session.h"
#include "onnx/regular_file.h"
#include "plan_file/plan_file.h"
#include "plan_file/whole_file.h"

namespace scn {
namespace {

std::string hexadecimal(const Sha256& digest) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : digest) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

std::vector<std::string> cpu_weights(const Network& network) {
  std::vector<std::string> weights(network.nodes.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const NodeSpec& n = network.nodes[i];
    if (n.kind != NodeKind::kConvolution) continue;
    weights[i] = stored_weights(prepare_weights({n.weight.data(), n.bias.data(), n.out_channels,
                                                 network.maps[size_t(n.map)].geometry.volume(), n.in_channels,
                                                 n.precision, n.amax[0], n.weight_amax.data(), n.name}));
  }
  return weights;
}

std::string bytes_of_plan(const OnnxModel& model, const EngineOptions& options) {
  if (model.plan) {
    fail(ErrorKind::kArgument,
         "A plan is made from an ONNX file, this is a plan already. Name the ONNX file ",
         "that it was made from (SHA-256 ", model.plan->info.onnx_sha256, ").");
  }
  // What an engine would refuse is refused now, not in the car.
  const Session session(model, options);
  PlanInfo info;
  info.library = SCN_FX_VERSION;
  info.kind = processor_kind(options);
  info.onnx_sha256 = hexadecimal(sha256(model.buffer.data(), model.buffer.size()));
  info.onnx_bytes = int64_t(model.buffer.size());
  info.float32 = options.float32;
  info.spatial_shape = options.spatial_shape;
  if (options.cuda) {
    info.max_batch = options.cuda_options.max_batch;
    info.max_sites = options.cuda_options.max_sites;
  }
  return plan_file_bytes(model, info,
                         options.cuda ? std::vector<std::string>() : cpu_weights(session.plan().network));
}

}  // namespace

std::string plan_bytes(const void* onnx, size_t size, const EngineOptions& options) {
  return bytes_of_plan(parse_model(std::string(static_cast<const char*>(onnx), size)), options);
}

void save_plan(const std::string& onnx, const std::string& path, const EngineOptions& options) {
  write_whole_file(path, bytes_of_plan(load_model(onnx), options));
}

}  // namespace scn
