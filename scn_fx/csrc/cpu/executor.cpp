// SPDX-License-Identifier: Apache-2.0
#include "cpu/executor.h"

#include <limits>

#include "core/error.h"
#include "core/kernel_log.h"
#include "cpu/convolution/stored_weights.h"
#include "cpu/rows_at_hand.h"

namespace scn {
namespace {

const std::string kInput = "The input";

/// Channels of a row as it is stored.
int32_t padded_columns(int32_t channels, ElementType type) {
  return type == ElementType::kInt8      ? int8_row(channels)
         : type == ElementType::kFloat16 ? half_row(channels)
                                         : channels;
}

int32_t row_bytes(int32_t channels, ElementType type) {
  return padded_columns(channels, type) * element_bytes(type);
}

}  // namespace

// Rows of few channels, which input layers read, are not stored as float16: they would gain little memory,
// and those layers do too little with a value to convert it first.
const BackendTraits kCpuTraits{"the CPU backend",
                               row_bytes,
                               kMostChainChannels + 1,
                               true,
                               std::numeric_limits<int32_t>::max(),
                               false,
                               std::numeric_limits<int32_t>::max(),
                               std::numeric_limits<int32_t>::max(),
                               std::numeric_limits<int32_t>::max()};

CpuExecutor::FrameMemory::FrameMemory(const Plan& plan)
    : sets(plan.network.sets.size()),
      maps(plan.network.maps.size()),
      slots(size_t(plan.slots)),
      dense(plan.dense.size()) {}

CpuExecutor::CpuExecutor(const Plan& plan, int threads, const MemoryLimits& limits,
                         const std::vector<ByteSpan>* stored)
    : plan_(plan), kernels_(select_kernels()), pool_(threads), budget_(limits.all) {
  load_network(limits, stored);
  choose_kernels();
  count_smallest_frame();
}

void CpuExecutor::load_network(const MemoryLimits& limits, const std::vector<ByteSpan>* stored) {
  MemoryBudget budget(limits.load);
  weights_.resize(plan_.network.nodes.size());
  Size scratch = 0;
  std::string widest;
  for (size_t i = 0; i < weights_.size(); ++i) {
    const NodeSpec& n = plan_.network.nodes[i];
    if (n.kind == NodeKind::kPool || n.kind == NodeKind::kUnion || n.kind == NodeKind::kGroupNorm ||
        n.kind == NodeKind::kGlobalPool) {
      const Size own = made_row_scratch(plan_.network.values[size_t(n.output)].channels) * pool_.size();
      if (own > scratch) {
        scratch = own;
        widest = n.name;
      }
    }
    if (n.kind != NodeKind::kConvolution) continue;
    const int32_t offsets = plan_.network.maps[size_t(n.map)].geometry.volume();
    budget.take(prepared_bytes(n.precision, n.out_channels, offsets, n.in_channels) +
                    Size(n.weight.size()) * sizeof(float),
                n.name, "its weight");
    const LayerWeights layer{n.weight.data(), n.bias.data(), n.out_channels,       offsets, n.in_channels,
                             n.precision,     n.amax[0],     n.weight_amax.data(), n.name};
    weights_[i] = stored ? read_stored_weights((*stored)[i], layer) : prepare_weights(layer);
    const Size own = convolution_scratch(n.out_channels, offsets, n.in_channels) * pool_.size();
    if (own > scratch) {
      scratch = own;
      widest = n.name;
    }
  }
  for (const MapSpec& map : plan_.network.maps) {
    if (map.partner < 0) budget.take(reach_bytes(map.geometry), map.layer, "what its offsets connect");
    reach_.push_back(map.partner >= 0 ? Reach{} : make_reach(map.geometry));
  }
  budget_.take(budget.taken(), kInput, "the weights of its layers");
  budget_.take(scratch, widest, "the sums of its output channels");
  loaded_ = budget_.taken();
}

void CpuExecutor::choose_kernels() {
  const bool prints = print_kernels_wanted();
  for (const Step& step : plan_.steps) {
    configs_.emplace_back();
    if (step.kind != Step::Kind::kConvolution) continue;
    const NodeSpec& n = plan_.node_of(step);
    const Storage& x = plan_.storage_of(step.input);
    const ConvProblem problem{n.precision,
                              n.in_channels,
                              n.out_channels,
                              plan_.network.maps[size_t(n.map)].geometry.volume(),
                              x.type == ElementType::kInt8 && x.nonnegative,
                              x.type == ElementType::kFloat16};
    configs_.back() = choose(problem, kernels_);
    if (prints) log_kernel(n.name, problem.text(), configs_.back().name);
  }
}

/// Refuses networks that no frame can run: what grids and dense maps take depends on the batch alone.
void CpuExecutor::count_smallest_frame() {
  const Network& net = plan_.network;
  for (const SiteSetSpec& set : net.sets) {
    const std::string& layer = set.map < 0 ? kInput : net.maps[size_t(set.map)].layer;
    budget_.take(SiteIndex::bitmap_bytes(set.shape, 1), layer, "the index of its grid");
  }
  for (const Step& step : plan_.steps) {
    if (step.dense_out < 0) continue;
    const NodeSpec& n = net.nodes[size_t(step.node)];
    budget_.take(dense_bytes(net.values[size_t(n.output)], 1), n.name, "its dense map");
    if (step.last_use)
      budget_.release(dense_bytes(net.values[size_t(plan_.dense[size_t(step.dense_in)].value)], 1));
  }
  budget_.go_back(loaded_);
}

/// Of a dense value in a frame of `batch`, in bytes.
Size CpuExecutor::dense_bytes(const ValueSpec& value, int32_t batch) const {
  Size all = value.half ? 2 : 4;
  for (size_t axis = 0; axis < value.dims.size(); ++axis)
    all *= axis == 0 && value.batch_first ? batch : value.dims[axis];
  return all;
}

std::vector<Result> CpuExecutor::run(const FrameView& frame, std::vector<StageTime>* times) {
  StageTimer watch(times);
  check_frame(frame);
  begin_frame();
  index_input(frame);
  watch.stop("sites", "input");
  return run_steps(frame, watch);
}

/// Everything behind the sites of the input.
std::vector<Result> CpuExecutor::run_steps(const FrameView& frame, StageTimer& watch) {
  build_maps(watch);
  reserve_slots();
  for (const Step& step : plan_.steps) {
    run_step(step, frame);
    watch.stop(step_kind(step), step.node < 0 ? "input" : plan_.node_of(step).name.c_str());
    StageTime* const time = watch.last();
    if (time && step.kind == Step::Kind::kConvolution) {
      time->macs = active_macs(step);
      time->kernel = kernel_of(size_t(&step - plan_.steps.data()));
    }
  }
  std::vector<Result> results;
  results.reserve(plan_.outputs.size());
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    const PlanOutput& output = plan_.outputs[i];
    results.push_back(output.dense >= 0 ? dense_result(output) : result(output));
  }
  watch.stop("results", "output");
  return results;
}

void CpuExecutor::check_frame(const FrameView& frame) const {
  const ValueSpec& features = plan_.network.values[size_t(plan_.network.features)];
  if (frame.channels != features.channels) {
    fail(ErrorKind::kSite, "The network reads ", features.channels, " features per site, the frame has ",
         frame.channels, ". Check which columns the model was trained on.");
  }
  if (frame.batch < 0)
    fail(ErrorKind::kArgument, "The batch size must be at least 1, got ", frame.batch, ".");
}

int64_t CpuExecutor::active_macs(const Step& step) const {
  const NodeSpec& n = plan_.network.nodes[size_t(step.node)];
  return held_->maps[size_t(n.map)].pairs() * n.in_channels * n.out_channels;
}

}  // namespace scn
