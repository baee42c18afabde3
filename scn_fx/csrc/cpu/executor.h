// SPDX-License-Identifier: Apache-2.0
// Runs a plan on the CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/convolution.h"
#include "cpu/stage_timer.h"
#include "maps/kernel_map.h"
#include "parallel.h"
#include "plan/plan.h"

namespace scn {

/// A frame as the caller has it. Float32 features are rounded to float16 when they are read.
struct FrameView {
  const void* features = nullptr;  // [sites, channels]
  bool half = false;               // float16 bits instead of float32
  int64_t sites = 0;
  int32_t channels = 0;
  const Site* indices = nullptr;
  int32_t batch = 0;  // 0: the exported one, or the largest batch index + 1
};

/// A result, owned by the caller. Sparse results carry their sites.
struct Result {
  std::vector<int64_t> dims;
  bool half = true;  // float16 bits, otherwise float32
  std::unique_ptr<char[]> data;
  bool sparse = false;
  std::vector<Site> sites;
};

/// Memory that an executor holds between frames, in bytes.
struct BufferBytes {
  int64_t weights = 0, activations = 0, kernel_maps = 0, sites = 0;
};

class CpuExecutor {
 public:
  CpuExecutor(const Plan& plan, int threads);

  /// One result per output of the plan.
  std::vector<Result> run(const FrameView& frame, std::vector<StageTime>* times = nullptr);

  BufferBytes buffer_bytes() const;
  int threads() const { return pool_.size(); }
  const char* isa() const { return kernels_.name; }

 private:
  void check_frame(const FrameView& frame);
  void build_maps(const FrameView& frame, StageTimer& watch);
  void run_step(const Step& step, const FrameView& frame);
  void load(const Step& step, const FrameView& frame);
  void convolution(const Step& step);
  void add(const Step& step);
  void scatter(const Step& step);
  void transpose(const Step& step);
  int64_t active_macs(const Step& step) const;
  Result result(const PlanOutput& output);
  Result dense_result(const PlanOutput& output, bool last);

  char* rows(int storage);
  void reserve_slots();
  int64_t row_elements(const Storage& storage) const;
  const std::vector<Emission>& emissions(const Step& step);
  Residual residual(const Step& step, const NodeSpec& add);
  void check_overflow(const Step& step, const Overflow& lost) const;

  const Plan& plan_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::vector<PreparedWeights> weights_;  // by node
  std::vector<Reach> reach_;              // by map
  // of the current frame
  int32_t batch_ = 1;
  std::vector<SiteSet> sets_;
  std::vector<int32_t> order_;  // input row of each row of set 0
  std::vector<KernelMap> maps_;
  std::vector<std::vector<char>> slots_;
  std::vector<std::unique_ptr<char[]>> dense_;
  // of the current step, here so that frames take no memory but their results
  std::vector<Emission> emissions_;
  Buffer<uint16_t> half_;
  std::vector<int64_t> dims_, strides_, out_dims_, out_strides_;
};

}  // namespace scn
