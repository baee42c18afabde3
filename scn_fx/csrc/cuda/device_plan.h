// SPDX-License-Identifier: Apache-2.0
// A plan on a device: weights, sites, kernel maps, activations and results, allocated once; and the launch of
// each step over them.
#pragma once

#include <string>
#include <vector>

#include "cuda/backend.h"
#include "cuda/convolution/convolution.h"
#include "cuda/maps/kernel_maps.h"
#include "cuda/rows/rows.h"
#include "cuda/runtime/memory.h"
#include "cuda/sites/geometry.h"
#include "plan/device_layout.h"

namespace scn::cuda {

struct SetMemory {
  DeviceArray<RankWord> words;
  DeviceArray<int32_t> line_counts, group_counts, count;
  DeviceArray<Site> sites;
};

class DevicePlan {
 public:
  /// Allocates on the current device.
  DevicePlan(const Plan& plan, const CudaOptions& options, int64_t load_limit);

  const Plan& plan() const { return plan_; }
  /// Largest batch.
  int32_t batch() const { return batch_; }
  const std::vector<SitesView>& sets() const { return sets_; }
  const std::vector<Growth>& growths() const { return growths_; }
  /// Maps from set 0 to itself, and all others.
  const std::vector<MapView>& first_maps() const { return first_maps_; }
  const std::vector<MapView>& later_maps() const { return later_maps_; }
  std::vector<DeviceResult>& results() { return results_; }
  const std::vector<DeviceResult>& results() const { return results_; }

  DeviceFrame* frame() const { return frame_.data(); }
  int32_t* status() const { return status_.data(); }
  int32_t status_entries() const;
  /// Far slots in use, by map (MapView::far_count).
  const DeviceArray<int32_t>& far_counts() const { return far_counts_; }
  /// Sites that each set may have, on the device.
  const int32_t* site_limits() const { return site_limits_.data(); }

  /// Whether a step reads a later kernel map, which are made beside the layers on set 0.
  bool needs_later_maps(const Step& step) const;
  /// Whether a step writes to a dense map, which is cleared beside layers.
  bool writes_dense(const Step& step) const;
  /// Bitmaps and counts as a frame wants them: zero. Each frame leaves them so, unless it failed on its way.
  void reset_sets(cudaStream_t stream) const;
  /// Clears the dense maps that sites are written to.
  void clear_dense(cudaStream_t stream) const;
  /// `after_maps`: kernels that make maps come right before it in the stream, or are waited for by an event.
  void run_step(size_t index, bool after_maps, cudaStream_t stream) const;
  /// Sparse results without padding.
  void pack_results(cudaStream_t stream) const;
  BufferBytes buffer_bytes() const;
  /// How a step's convolution runs (ConvConfig::text); empty for other steps.
  std::string kernel_of(size_t index) const;

 private:
  int32_t* overflow_of(size_t step) const;
  void prepare_sets();
  void prepare_maps();
  /// Memory of kernel maps and storages: many are not needed at the same time.
  void prepare_arena();
  void prepare_dense();
  /// Room for what global pooling makes on its way; its steps share it, as they run one after another.
  void prepare_global_pools();
  void prepare_results();
  /// Scales and shifts of affine maps.
  void prepare_affines();
  /// Chooses kernels by what the steps store, and packs weights for them.
  void prepare_convolutions(int64_t load_limit);
  char* rows(const View& view) const {
    return arena_.data() + layout_.storages[size_t(view.storage)] +
           int64_t(view.column) * element_bytes(plan_.storage_of(view).type);
  }
  int32_t stride_of(const View& view) const { return plan_.storage_of(view).row_bytes; }
  const SitesView& set_of(const View& view) const { return sets_[size_t(plan_.storage_of(view).set)]; }
  /// Dims of a dense value with the largest batch.
  std::vector<int64_t> dense_dims(int value) const;
  EmissionView emission_of(const Emission& emission) const;
  /// Turns an emission into one to the cells of a dense map.
  void write_cells(int dense, EmissionView& emission) const;
  FinishView finish_of(size_t index) const;
  PooledRows pooled(int map, const View& view) const;
  void concat(const Step& step, cudaStream_t stream) const;
  void transpose(const Step& step, cudaStream_t stream) const;

  const Plan& plan_;
  const CudaOptions options_;
  const DeviceLimits& limits_;
  int32_t batch_ = 1;
  std::vector<SetMemory> set_memory_;
  std::vector<SitesView> sets_;
  DeviceArray<int32_t> site_limits_;  // by set
  std::vector<Growth> growths_;
  DeviceArray<char> arena_;
  DeviceLayout layout_;
  std::vector<int64_t> map_bytes_;   // by map
  DeviceArray<int32_t> far_counts_;  // by map
  std::vector<MapView> maps_, first_maps_, later_maps_;
  std::vector<DeviceArray<char>> dense_, packed_;
  DeviceArray<int32_t> entry_rows_;
  DeviceArray<double> pool_chunks_;
  DeviceArray<int32_t> row_of_input_;
  DeviceArray<Site> packed_sites_;
  DeviceArray<DeviceFrame> frame_;
  DeviceArray<int32_t> status_;
  std::vector<DeviceResult> results_;
  struct DeviceAffine {
    DeviceArray<float> scale, shift;
  };
  std::vector<DeviceAffine> affines_;            // by node; empty for other nodes
  std::vector<DeviceConvolution> convolutions_;  // by step; empty for other steps
};

}  // namespace scn::cuda
