// SPDX-License-Identifier: Apache-2.0
// Runs a plan on the CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/convolution.h"
#include "cpu/stage_timer.h"
#include "maps/kernel_map.h"
#include "memory_budget.h"
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

/// Rows of a stored form as they lie in memory. Whoever reads them asks for their type.
class StoredRows {
 public:
  enum class Type : uint8_t { kInt8, kHalf, kFloat };

  StoredRows(Type type, void* data, int64_t stride) : type_(type), data_(data), stride_(stride) {}
  Type type() const { return type_; }
  bool is_half() const { return type_ == Type::kHalf; }
  int64_t stride() const { return stride_; }                                        // elements
  int64_t element() const { return type_ == Type::kInt8 ? 1 : is_half() ? 2 : 4; }  // bytes
  void* data() const { return data_; }
  int8_t* int8() const { return as<int8_t>(Type::kInt8); }
  uint16_t* half() const { return as<uint16_t>(Type::kHalf); }
  float* floats() const { return as<float>(Type::kFloat); }

 private:
  template <typename T>
  T* as(Type type) const {
    if (type != type_) throw std::logic_error("rows are read as another type than they have");
    return static_cast<T*>(data_);
  }

  Type type_;
  void* data_;
  int64_t stride_;
};

class CpuExecutor {
 public:
  CpuExecutor(const Plan& plan, int threads, const MemoryLimits& limits);

  /// One result per output of the plan.
  std::vector<Result> run(const FrameView& frame, std::vector<StageTime>* times = nullptr);

  BufferBytes buffer_bytes() const;
  /// Leaves the memory of earlier frames alone, the next one takes new: a thread that fork() did not copy may
  /// have been changing it.
  void abandon_frames() noexcept { static_cast<void>(held_.release()); }
  int threads() const { return pool_.size(); }
  const char* isa() const { return kernels_.name; }

 private:
  void load_network(const MemoryLimits& limits);
  void count_smallest_frame();
  void check_frame(const FrameView& frame) const;
  [[noreturn]] void fail_non_finite(const FrameView& frame, int64_t count) const;
  void build_maps(const FrameView& frame, StageTimer& watch);
  void run_step(const Step& step, const FrameView& frame);
  void load(const Step& step, const FrameView& frame);
  void convolution(const Step& step);
  void add(const Step& step);
  void scatter(const Step& step);
  void transpose(const Step& step);
  int64_t active_macs(const Step& step) const;
  Result result(const PlanOutput& output);
  Result dense_result(const PlanOutput& output);

  /// Where a storage lies in the current frame; its stride alone needs no frame.
  StoredRows rows(int storage) const;
  void reserve_slots();
  Size dense_bytes(const ValueSpec& value, int32_t batch) const;
  std::unique_ptr<char[]> dense_memory(Size bytes, const std::string& layer);
  const std::vector<Emission>& emissions(const Step& step);
  Residual residual(const Step& step, const NodeSpec& add);
  void check_overflow(const Step& step, const Overflow& lost) const;

  const Plan& plan_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::vector<PreparedWeights> weights_;  // by node
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
    std::vector<std::vector<char>> slots;
    std::vector<Size> slot_bytes;  // that this frame needs
    std::vector<std::unique_ptr<char[]>> dense;
    // of the current step
    std::vector<Emission> emissions;
    Buffer<uint16_t> half;
    Buffer<float> floats;
    std::vector<int64_t> dims, strides, out_dims, out_strides;
  };
  std::unique_ptr<FrameMemory> held_;
};

}  // namespace scn
