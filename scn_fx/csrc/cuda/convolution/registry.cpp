// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution/registry.h"

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "core/layer.h"
#include "cuda/convolution/chain/chain.h"
#include "cuda/convolution/hopper/hopper.h"
#include "cuda/convolution/tensor/tensor.h"
#include "cuda/runtime/launch.h"

namespace scn::cuda {
namespace {

// The first that suits is taken.
constexpr ConvKernel kKernels[] = {
    {"input-chain", 0, "threads", 1, has_order, input_chain::suits, pack_rows, input_chain::launch},
    {"chain", 0, "threads", 1, has_order, chain::suits, pack_rows, chain::launch},
    {"hopper-pair-int8", 90, "warpgroups", 128, is_int8, hopper::pair_suits, pack_column_pairs,
     hopper::launch},
    {"hopper-pair-half", 90, "warpgroups", 128, is_unordered_half, hopper::pair_suits, pack_column_pairs,
     hopper::launch},
    {"hopper-int8", 90, "warpgroups", 128, is_int8, hopper::suits, pack_columns, hopper::launch},
    {"hopper-half", 90, "warpgroups", 128, is_unordered_half, hopper::suits, pack_columns, hopper::launch},
    {"tensor-int8", 0, "threads", 1, is_int8, tensor::suits, pack_fragments, tensor::launch},
    {"tensor-half", 0, "threads", 1, is_unordered_half, tensor::suits, pack_fragments, tensor::launch},
};

bool generic_kernels_wanted() {
  const char* const text = std::getenv("SCN_FX_CUDA_KERNELS");
  const std::string kernels = text ? text : "";
  if (!kernels.empty() && kernels != "best" && kernels != "generic") {
    fail(ErrorKind::kArgument, "SCN_FX_CUDA_KERNELS must be 'best' or 'generic', got '", kernels, "'.");
  }
  return kernels == "generic";
}

/// Whether a kernel runs a problem on a device; if so, how.
bool able(const ConvKernel& kernel, const ConvProblem& problem, const DeviceLimits& limits,
          ConvConfig* config) {
  if (kernel.architecture && kernel.architecture != limits.architecture) return false;
  if (!kernel.computes(problem)) return false;
  *config = ConvConfig{};
  config->problem = problem;
  config->kernel = &kernel;
  config->early = limits.early_launch;
  config->padded = padded_channels(problem);
  return kernel.suits(problem, limits, config);
}

}  // namespace

ConvConfig choose(const ConvProblem& problem, const DeviceLimits& limits, const std::string& layer) {
  const bool generic = generic_kernels_wanted();
  ConvConfig config;
  for (const ConvKernel& kernel : kKernels) {
    if (kernel.architecture && generic) continue;
    if (able(kernel, problem, limits, &config)) return config;
  }
  fail(ErrorKind::kArgument, layer, ": its kernel has ", problem.offsets,
       " offsets, more than a device with ", limits.shared_bytes,
       " bytes of shared memory for a block has room for. Run it on the CPU.");
}

ConvConfig choose(const ConvProblem& problem, const DeviceLimits& limits, const std::string& layer,
                  const std::string& name) {
  ConvConfig config;
  for (const ConvKernel& kernel : kKernels) {
    if (kernel.name == name && able(kernel, problem, limits, &config)) return config;
  }
  fail_kernel(layer, name, problem.text(), kernel_names(problem, limits));
}

std::vector<std::string> kernel_names(const ConvProblem& problem, const DeviceLimits& limits) {
  std::vector<std::string> names;
  ConvConfig config;
  for (const ConvKernel& kernel : kKernels) {
    if (able(kernel, problem, limits, &config)) names.emplace_back(kernel.name);
  }
  return names;
}

void prepare(ConvConfig& config, const DeviceLimits& limits) {
  if (config.shared_bytes) allow_shared(config.symbol, config.shared_bytes, limits);
  int32_t together = config.together;
  if (config.cluster > 1) {
    together = blocks_in_clusters(config.symbol, config.threads, config.shared_bytes, config.cluster);
  } else {
    if (!together) together = blocks_per_multiprocessor(config.symbol, config.threads, config.shared_bytes);
    together *= limits.multiprocessors;
  }
  if (!config.own_wave) together /= config.column_blocks();
  const int32_t needed = (config.problem.capacity + config.block_rows - 1) / config.block_rows;
  config.blocks = std::max(1, std::min(needed, together / config.cluster)) * config.cluster;
}

}  // namespace scn::cuda
