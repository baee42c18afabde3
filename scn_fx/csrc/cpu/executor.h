// SPDX-License-Identifier: Apache-2.0
// Runs a plan on the CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/executor.h"
#include "core/line_vector.h"
#include "core/memory_budget.h"
#include "core/parallel.h"
#include "core/stage_timer.h"
#include "cpu/convolution/convolution.h"
#include "cpu/global_pool.h"
#include "cpu/maps/kernel_map.h"
#include "cpu/pool.h"
#include "plan/plan.h"

namespace scn {

/// Rows of a stored form as they lie in memory. Whoever reads them asks for their type.
class StoredRows {
 public:
  StoredRows(ElementType type, void* data, int64_t stride) : type_(type), data_(data), stride_(stride) {}
  ElementType type() const { return type_; }
  bool is_half() const { return type_ == ElementType::kFloat16; }
  int64_t stride() const { return stride_; }  // elements
  void* data() const { return data_; }
  int8_t* int8() const { return as<int8_t>(ElementType::kInt8); }
  uint16_t* half() const { return as<uint16_t>(ElementType::kFloat16); }
  float* floats() const { return as<float>(ElementType::kFloat32); }

 private:
  template <typename T>
  T* as(ElementType type) const {
    if (type != type_) throw std::logic_error("rows are read as another type than they have");
    return static_cast<T*>(data_);
  }

  ElementType type_;
  void* data_;
  int64_t stride_;
};

/// What plans for the CPU look like.
extern const BackendTraits kCpuTraits;

class CpuExecutor final : public Executor {
 public:
  /// `stored`: weights by node, of a network that comes from a plan file; read here alone.
  CpuExecutor(const Plan& plan, int threads, const MemoryLimits& limits,
              const std::vector<ByteSpan>* stored = nullptr);

  std::vector<Result> run(const FrameView& frame, std::vector<StageTime>* times) override;
  BufferBytes buffer_bytes() const override;
  int threads() const override { return pool_.size(); }
  std::string backend() const override { return kernels_.name; }
  std::string kernel_of(size_t step) const override { return configs_[step].name; }
  bool abandon_frames() noexcept override {
    static_cast<void>(held_.release());
    return true;
  }

 private:
  void load_network(const MemoryLimits& limits, const std::vector<ByteSpan>* stored);
  void choose_kernels();
  void count_smallest_frame();
  void check_frame(const FrameView& frame) const;
  [[noreturn]] void fail_non_finite(const FrameView& frame, int64_t count) const;
  void build_maps(const FrameView& frame, StageTimer& watch);
  void make_sites(size_t map);
  void run_step(const Step& step, const FrameView& frame);
  void load(const Step& step, const FrameView& frame);
  void convolution(const Step& step);
  void finish_rows(const Step& step);
  void concat(const Step& step);
  void pool(const Step& step);
  void unite(const Step& step);
  void pool_rows(const Step& step, Pooling kind);
  void group_norm(const Step& step);
  FeatureRows float_rows(const View& view) const;
  void global_pool(const Step& step);
  void scatter(const Step& step);
  void transpose(const Step& step);
  int64_t active_macs(const Step& step) const;
  Result result(const PlanOutput& output);
  Result dense_result(const PlanOutput& output);

  /// Where columns lie in the current frame; the stride alone needs no frame.
  StoredRows rows(const View& view) const;
  void reserve_slots();
  Size dense_bytes(const ValueSpec& value, int32_t batch) const;
  std::unique_ptr<char[]> dense_memory(Size bytes, const std::string& layer);
  /// An epilogue with the addresses of the current frame.
  Finish finish_of(const Epilogue& epilogue);
  void check_overflow(const Step& step, const Overflow& lost) const;

  const Plan& plan_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::vector<PreparedWeights> weights_;  // by node
  std::vector<ConvConfig> configs_;       // by step
  std::vector<Reach> reach_;              // by map
  MemoryBudget budget_;
  Size loaded_ = 0;  // counted by the budget before any frame

  /// Of the current frame, and kept for the next: frames take no memory but their results.
  struct FrameMemory {
    explicit FrameMemory(const Plan& plan);

    int32_t batch = 1;
    std::vector<SiteSet> sets;
    std::vector<int32_t> order;  // input row of each row of set 0
    std::vector<KernelMap> maps;
    std::vector<LineVector<char>> slots;
    std::vector<Size> slot_bytes;  // that this frame needs
    std::vector<std::unique_ptr<char[]>> dense;
    // of the current step
    std::vector<StoreView> stores;
    std::vector<PooledRows> pooled;
    Buffer<uint16_t> half;
    Buffer<float> floats;
    GlobalPoolMemory global_pool;
    std::vector<int64_t> dims, strides, out_dims, out_strides;
  };
  std::unique_ptr<FrameMemory> held_;
};

}  // namespace scn
