// SPDX-License-Identifier: Apache-2.0
#include <cuda_fp16.h>

#include "core/exact_sum.h"
#include "cuda/points/points.h"
#include "cuda/runtime/device_code.cuh"
#include "cuda/runtime/launch.h"
#include "cuda/sites/lookup.cuh"

namespace scn::cuda {
namespace {

constexpr int kThreads = 256;
/// Points of a voxel up to which one thread sums a column; a warp does where there are more.
constexpr int32_t kAlone = 8;
constexpr int kAtOnce = 4;  // points that a thread reads together: every one is two accesses far away

uint32_t blocks() { return uint32_t(current_limits().multiprocessors) * 8; }

__global__ __launch_bounds__(kThreads) void begin_points_kernel(const __grid_constant__ PointArrays arrays,
                                                                const __grid_constant__ PointFrame points,
                                                                DeviceFrame* frame, const DeviceFrame value,
                                                                int32_t* status, int32_t entries,
                                                                int32_t* far_counts, int32_t maps) {
  if (threadIdx.x == 0) {
    *frame = value;
    *arrays.totals = PointTotals{};
  }
  const int32_t* const from = reinterpret_cast<const int32_t*>(&points);
  int32_t* const to = reinterpret_cast<int32_t*>(arrays.frame);
  const int32_t words = int32_t(offsetof(PointFrame, ends) / 4) + points.scans;
  for (int32_t i = threadIdx.x; i < words; i += kThreads) to[i] = from[i];
  for (int32_t i = threadIdx.x; i < maps; i += kThreads) far_counts[i] = 0;
  for (int32_t i = threadIdx.x; i < entries; i += kThreads) status[i] = holds_row(i) ? kNoRow : 0;
}

__device__ __forceinline__ float value_of(float v) { return v; }
__device__ __forceinline__ float value_of(__half v) { return __half2float(v); }

__device__ __forceinline__ int32_t scan_of(const PointFrame& frame, int32_t point) {
  int32_t low = 0, high = frame.scans - 1;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (point < frame.ends[middle]) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

template <typename T>
__device__ __forceinline__ void mark_points_of(const PointArrays& arrays, const SitesView& set,
                                               int32_t* status) {
  const PointFrame& frame = *arrays.frame;
  const T* const points = static_cast<const T*>(frame.points);
  const int32_t count = frame.count, columns = frame.columns;
  const bool sums_all = frame.grid.max_points == 0;
  int32_t dropped = 0;
  for (int32_t i = int32_t(blockIdx.x) * kThreads + int32_t(threadIdx.x); i < count;
       i += int32_t(gridDim.x) * kThreads) {
    const T* const point = points + int64_t(i) * columns;
    float largest = 0.0f;
    bool finite = true;
    for (int32_t c = 0; c < columns; ++c) {
      const float v = fabsf(value_of(__ldg(point + c)));
      finite = finite && v <= 3.402823466e+38f;
      largest = fmaxf(largest, v);
    }
    PointPlace place{-1, 0};
    int32_t cells[3];
    const float x = value_of(__ldg(point)), y = value_of(__ldg(point + 1)), z = value_of(__ldg(point + 2));
    if (!finite) {
      atomicAdd(&status[kBadPoints], 1);
      atomicMin(&status[kFirstBadPoint], i);
    } else if (!(frame.grid.float64 ? cells_of<double>(frame.grid, x, y, z, cells)
                                    : cells_of<float>(frame.grid, x, y, z, cells))) {
      ++dropped;
    } else if (sums_all && !(largest < float(kExactSumLimit))) {
      atomicAdd(&status[kLargePoints], 1);
      atomicMin(&status[kFirstLargePoint], i);
    } else {
      const Site s = site_of_cells(frame.grid, frame.scans > 1 ? scan_of(frame, i) : 0, cells);
      place = {line_of(set, s.batch, s.z, s.y), s.x};
      uint32_t* const word = &set.words[int64_t(place.line) * set.words_per_line + (s.x >> 5)].bits;
      const uint32_t bit = 1u << (s.x & 31);
      // Most voxels have several points: look before the atomic.
      if (!(*reinterpret_cast<volatile uint32_t*>(word) & bit) && !(atomicOr(word, bit) & bit))
        atomicAdd(&set.line_counts[place.line], 1);
    }
    arrays.places[i] = place;
  }
  dropped = warp_sum(dropped);
  if (dropped && (threadIdx.x & 31) == 0) atomicAdd(&arrays.totals->dropped, dropped);
}

/// Also clears the counts of rows, which none has yet.
__global__ __launch_bounds__(kThreads) void mark_points_kernel(const __grid_constant__ PointArrays arrays,
                                                               const __grid_constant__ SitesView set,
                                                               int32_t* status) {
  launch_dependents();
  for (int32_t i = int32_t(blockIdx.x) * kThreads + int32_t(threadIdx.x); i < set.capacity;
       i += int32_t(gridDim.x) * kThreads) {
    arrays.counts[i] = 0;
  }
  if (arrays.frame->half) {
    mark_points_of<__half>(arrays, set, status);
  } else {
    mark_points_of<float>(arrays, set, status);
  }
}

/// The row of each point, and its number among the row's points, as they happen to come.
__global__ __launch_bounds__(kThreads) void find_rows_kernel(const __grid_constant__ PointArrays arrays,
                                                             const __grid_constant__ SitesView set) {
  wait_for_dependency();
  launch_dependents();
  const int32_t count = arrays.frame->count, rows = *set.count;
  for (int32_t i = int32_t(blockIdx.x) * kThreads + int32_t(threadIdx.x); i < count;
       i += int32_t(gridDim.x) * kThreads) {
    PointPlace place = arrays.places[i];
    if (place.line < 0) continue;
    const int64_t word = int64_t(place.line) * set.words_per_line + (place.at >> 5);
    const uint2 found = __ldcg(reinterpret_cast<const uint2*>(set.words) + word);
    const int32_t row = row_in_word({found.x, int32_t(found.y)}, place.at);
    place = {-1, 0};
    if (row >= 0 && row < rows) place = {row, atomicAdd(&arrays.counts[row], 1)};
    arrays.places[i] = place;
  }
}

/// Where the points of each row are listed: rows take their parts in any order, which no sum depends on.
__global__ __launch_bounds__(kThreads) void allot_kernel(const __grid_constant__ PointArrays arrays,
                                                         const __grid_constant__ SitesView set,
                                                         DeviceFrame* frame) {
  wait_for_dependency();
  launch_dependents();
  const int32_t rows = *set.count, most = arrays.frame->grid.max_points, lane = threadIdx.x & 31;
  if (blockIdx.x == 0 && threadIdx.x == 0) frame->sites = rows;
  int32_t surplus = 0;
  for (int32_t row = int32_t(blockIdx.x) * kThreads + int32_t(threadIdx.x); (row & ~31) < rows;
       row += int32_t(gridDim.x) * kThreads) {
    const int32_t count = row < rows ? __ldcg(arrays.counts + row) : 0, up_to = warp_inclusive(count);
    int32_t base = 0;
    if (lane == 31) base = atomicAdd(&arrays.totals->listed, up_to);
    base = __shfl_sync(0xffffffffu, base, 31);
    if (row < rows) arrays.starts[row] = base + up_to - count;
    const uint32_t many = __ballot_sync(0xffffffffu, count > kAlone);
    int32_t first = 0;
    if (many && lane == 0) first = atomicAdd(&arrays.totals->crowded, __popc(many));
    first = __shfl_sync(0xffffffffu, first, 0);
    if (count > kAlone) arrays.crowded[first + __popc(many & ((1u << lane) - 1))] = row;
    if (most && count > most) surplus += count - most;
  }
  surplus = warp_sum(surplus);
  if (surplus && lane == 0) atomicAdd(&arrays.totals->surplus, surplus);
}

__global__ __launch_bounds__(kThreads) void list_kernel(const __grid_constant__ PointArrays arrays) {
  wait_for_dependency();
  launch_dependents();
  const int32_t count = arrays.frame->count;
  for (int32_t i = int32_t(blockIdx.x) * kThreads + int32_t(threadIdx.x); i < count;
       i += int32_t(gridDim.x) * kThreads) {
    const PointPlace place = arrays.places[i];
    if (place.line >= 0) arrays.listed[__ldcg(arrays.starts + place.line) + place.at] = i;
  }
}

/// One column of the points of one row.
template <typename T>
struct ColumnOfRow {
  const T* column;  // of the first point
  int32_t columns;
  const int32_t* listed;
  int32_t count;

  __device__ __forceinline__ float value(int32_t point) const {
    return value_of(__ldg(column + int64_t(point) * columns));
  }

  /// Adds the points at first, first + step, ...
  __device__ __forceinline__ ExactSum sum_of(int32_t first, int32_t step) const {
    ExactSum sum;
    for (int32_t k = first; k < count; k += kAtOnce * step) {
      int32_t points[kAtOnce];
      float values[kAtOnce];
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) points[n] = k + n * step < count ? __ldcg(listed + k + n * step) : -1;
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) values[n] = points[n] < 0 ? 0.0f : value(points[n]);
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) sum.add(exact_term(values[n]));
    }
    return sum;
  }

  /// The smallest of the points at first, first + step, ... behind `last`.
  __device__ __forceinline__ int32_t next_after(int32_t last, int32_t first, int32_t step) const {
    int32_t next = kNoRow;
#pragma unroll 8
    for (int32_t k = first; k < count; k += step) {
      const int32_t point = __ldcg(listed + k);
      if (point > last) next = min(next, point);
    }
    return next;
  }

  __device__ __forceinline__ float mean_alone(int32_t most) const {
    if (most == 0) return exact_mean(sum_of(0, 1), count);
    const int32_t taken = min(count, most);
    float sum = 0.0f;
    for (int32_t n = 0, last = -1; n < taken; ++n) {
      last = next_after(last, 0, 1);
      sum += value(last);
    }
    return sum / float(taken);
  }

  /// The same by all lanes of a warp.
  __device__ __forceinline__ float mean_together(int32_t most, int32_t lane) const {
    if (most == 0) {
      ExactSum sum = sum_of(lane, 32);
#pragma unroll
      for (int d = 16; d; d /= 2) {
        ExactSum other;
        other.low = __shfl_xor_sync(0xffffffffu, sum.low, d);
        other.high = __shfl_xor_sync(0xffffffffu, sum.high, d);
        sum.add(other);
      }
      return exact_mean(sum, count);
    }
    const int32_t taken = min(count, most);
    float sum = 0.0f;
    for (int32_t n = 0, last = -1; n < taken; ++n) {
      last = warp_min(next_after(last, lane, 32));
      sum += value(last);
    }
    return sum / float(taken);
  }
};

template <typename T>
__device__ __forceinline__ void means_of(const PointArrays& arrays, int32_t rows) {
  const PointFrame& frame = *arrays.frame;
  const int32_t columns = frame.columns, most = frame.grid.max_points,
                threads = int32_t(gridDim.x) * kThreads;
  const int32_t thread = int32_t(blockIdx.x) * kThreads + int32_t(threadIdx.x), lane = threadIdx.x & 31;
  const auto column_of = [&](int32_t row, int32_t c) {
    return ColumnOfRow<T>{static_cast<const T*>(frame.points) + c, columns,
                          arrays.listed + __ldcg(arrays.starts + row), __ldcg(arrays.counts + row)};
  };
  const auto store = [&](int32_t row, int32_t c, float mean) {
    reinterpret_cast<__half*>(arrays.means)[row * columns + c] = __float2half_rn(mean);
  };
  // Rows of many points lie beside each other: dealt out first, one column to a warp, they end with the rest.
  const int32_t crowded = __ldcg(&arrays.totals->crowded) * columns;
  for (int32_t i = thread / 32; i < crowded; i += threads / 32) {
    const int32_t row = __ldcg(arrays.crowded + i / columns), c = i % columns;
    const float mean = column_of(row, c).mean_together(most, lane);
    if (lane == 0) store(row, c, mean);
  }
  for (int32_t i = thread; i < rows * columns; i += threads) {
    const int32_t row = i / columns, c = i - row * columns;
    const ColumnOfRow<T> column = column_of(row, c);
    if (column.count <= kAlone) store(row, c, column.mean_alone(most));
  }
}

__global__ __launch_bounds__(kThreads) void means_kernel(const __grid_constant__ PointArrays arrays,
                                                         const __grid_constant__ SitesView set) {
  wait_for_dependency();
  launch_dependents();
  if (arrays.frame->half) {
    means_of<__half>(arrays, *set.count);
  } else {
    means_of<float>(arrays, *set.count);
  }
}

}  // namespace

void begin_points(const PointArrays& arrays, const PointFrame& points, DeviceFrame* frame,
                  const DeviceFrame& value, int32_t* status, int32_t status_entries, int32_t* far_counts,
                  int32_t maps, cudaStream_t stream) {
  begin_points_kernel<<<1, kThreads, 0, stream>>>(arrays, points, frame, value, status, status_entries,
                                                  far_counts, maps);
  check_launch("begin");
}

void mark_points(const PointArrays& arrays, const SitesView& input, int32_t* status, cudaStream_t stream) {
  mark_points_kernel<<<blocks(), kThreads, 0, stream>>>(arrays, input, status);
  check_launch("marking the voxels of points");
}

void average_points(const PointArrays& arrays, const SitesView& input, DeviceFrame* frame,
                    cudaStream_t stream) {
  const DeviceLimits limits = current_limits();
  launch_early(find_rows_kernel, dim3(blocks()), kThreads, 0, limits, stream, arrays, input);
  launch_early(allot_kernel, dim3(blocks_for(input.capacity, kThreads, blocks())), kThreads, 0, limits,
               stream, arrays, input, frame);
  launch_early(list_kernel, dim3(blocks()), kThreads, 0, limits, stream, arrays);
  launch_early(means_kernel, dim3(blocks()), kThreads, 0, limits, stream, arrays, input);
  check_launch("averaging points");
}

}  // namespace scn::cuda
