// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "core/types.h"
#include "cuda/rows/emit_row.cuh"
#include "cuda/rows/rows.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/device_code.cuh"
#include "cuda/runtime/launch.h"
#include "cuda/sites/lookup.cuh"

namespace scn::cuda {
namespace {

constexpr int kThreads = 256;

uint32_t blocks_for(int64_t items) { return cuda::blocks_for(items, kThreads, 4096); }

__global__ void load_kernel(const DeviceFrame* frame, const __grid_constant__ SitesView set, int32_t channels,
                            const __grid_constant__ FinishView f, int32_t* row_of_input, int32_t* status) {
  const DeviceFrame view = *frame;
  for (int32_t i = blockIdx.x * kThreads + threadIdx.x; i < view.sites; i += gridDim.x * kThreads) {
    const Site s = view.indices[i];
    int32_t row = inside(view, set, s) ? row_at(set, line_of(set, s.batch, s.z, s.y), s.x) : -1;
    if (row >= *set.count) row = -1;
    row_of_input[i] = row;
    const int64_t at = int64_t(i) * channels;
    const auto feature = [&](int32_t c) {
      return view.half ? __half2float(static_cast<const __half*>(view.features)[at + c])
                       : static_cast<const float*>(view.features)[at + c];
    };
    int32_t bad = 0, first_bad = kNoRow;
    for (int32_t c = 0; c < channels; ++c) {
      if (fabsf(feature(c)) < kHalfOverflow) continue;
      ++bad;
      if (first_bad == kNoRow) first_bad = i;
    }
    if (bad) {
      atomicAdd(&status[kNonFinite], bad);
      atomicMin(&status[kFirstNonFinite], first_bad);
    }
    if (row < 0) continue;
    Lost lost;  // what does not fit was counted above
    emit_row(f, row, [&](int32_t c) { return __half2float(__float2half_rn(feature(c))); }, lost);
  }
}

/// What load_rows does for few channels, which are stored in 16 bytes of float16: every value is read once,
/// and before it is known which row it goes to.
struct LoadFewView {
  static constexpr int kChannels = 8;
  const DeviceFrame* frame;
  SitesView set;
  int32_t channels;
  char* out;  // rows of 16 bytes
  int32_t* row_of_input;
  int32_t* status;
};
template <typename T>
__device__ __forceinline__ void load_few_of(const LoadFewView& view, const DeviceFrame& frame, int32_t first,
                                            int32_t step) {
  constexpr int kChannels = LoadFewView::kChannels;
  const SitesView& set = view.set;
  int4 at = make_int4(0, 0, 0, 0);
  T own[kChannels];
  const auto fetch = [&](int32_t i) {
    if (i >= frame.sites) return;
    at = __ldcg(reinterpret_cast<const int4*>(frame.indices) + i);
    const T* const features = static_cast<const T*>(frame.features) + int64_t(i) * view.channels;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      own[c] = T(0.0f);
      if (c < view.channels) own[c] = __ldcg(features + c);
    }
  };
  fetch(first);  // the caller's, which are there before the sites are ranked
  wait_for_dependency();
  launch_dependents();
  const int32_t rows = __ldcg(set.count);
  for (int32_t i = first; i < frame.sites; i += step) {
    if (i != first) fetch(i);
    const Site s{at.x, at.y, at.z, at.w};
    int32_t row = -1;
    if (inside(frame, set, s)) {
      const int64_t word = int64_t(line_of(set, s.batch, s.z, s.y)) * set.words_per_line + (s.x >> 5);
      const uint2 found = __ldcg(reinterpret_cast<const uint2*>(set.words) + word);
      row = row_in_word({found.x, int32_t(found.y)}, s.x);
    }
    if (row >= rows) row = -1;
    view.row_of_input[i] = row;
    int32_t bad = 0;
    uint32_t chunk[4] = {0, 0, 0, 0};
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const float v = float(own[c]);
      bad += !(fabsf(v) < kHalfOverflow);
      put(chunk, ElementType::kFloat16, c, v);
    }
    if (bad) {
      atomicAdd(&view.status[kNonFinite], bad);
      atomicMin(&view.status[kFirstNonFinite], i);
    }
    if (row >= 0)
      reinterpret_cast<uint4*>(view.out)[row] = make_uint4(chunk[0], chunk[1], chunk[2], chunk[3]);
  }
}

/// The frame, past the first-level cache: it changes from frame to frame, and this is read before the wait.
/// It has been there since the sites were marked, which ended before the kernel before could let this start.
__device__ __forceinline__ DeviceFrame frame_before_wait(const DeviceFrame* from) {
  DeviceFrame frame;
  static_assert(sizeof(frame) % 8 == 0, "whole words");
#pragma unroll
  for (size_t i = 0; i < sizeof(frame) / 8; ++i)
    reinterpret_cast<uint64_t*>(&frame)[i] =
        __ldcg(reinterpret_cast<const unsigned long long*>(from) + i);
  return frame;
}

/// The caller's sites `first`, `first + step`, ...
__device__ __forceinline__ void load_few(const LoadFewView& view, int32_t first, int32_t step) {
  const DeviceFrame frame = frame_before_wait(view.frame);
  if (frame.half) {
    load_few_of<__half>(view, frame, first, step);
  } else {
    load_few_of<float>(view, frame, first, step);
  }
}

__global__ __launch_bounds__(kThreads) void load_few_kernel(const __grid_constant__ LoadFewView view) {
  load_few(view, blockIdx.x * kThreads + threadIdx.x, gridDim.x * kThreads);
}

/// The finish of stored rows: with an Add, self is its first operand.
__global__ void finish_kernel(const char* self, ElementType type, int32_t stride, const int32_t* count,
                              const __grid_constant__ FinishView f) {
  const int32_t rows = *count;
  const ResidualView as_self = operand_of(self, type, stride);  // read the way the second operand is
  Lost lost;
  for (int32_t row = blockIdx.x * kThreads + threadIdx.x; row < rows; row += gridDim.x * kThreads) {
    emit_row(
        f, row,
        [&](int32_t c) {
          Lost ignored;
          float y = other_operand(as_self, row, c);
          if (f.scale) y = __fadd_rn(__fmul_rn(y, __ldg(f.scale + c)), __ldg(f.bias + c));
          y = activate(f.activation, y);
          if (!f.residual.other) return y;
          const float other = other_operand(f.residual, row, c);
          return f.residual.product ? multiply_operands(f.residual, y, other)
                                    : add_operands(f.residual, y, other, true, ignored);
        },
        lost);
  }
  report_lost(f, lost);
}

template <typename T>
__global__ void scatter_kernel(const char* rows, int32_t stride, const __grid_constant__ EmissionView e,
                               const __grid_constant__ SitesView set) {
  const int32_t count = *set.count;
  const int64_t items = int64_t(count) * e.columns;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < items;
       i += int64_t(gridDim.x) * kThreads) {
    const int32_t column = int32_t(i / count), row = int32_t(i - int64_t(column) * count);
    const Site s = set.sites[row];
    const int64_t cell = (int64_t(s.z) * e.height + s.y) * e.width + s.x;
    static_cast<T*>(e.out)[(int64_t(s.batch) * e.columns + column) * e.cells + cell] =
        reinterpret_cast<const T*>(rows + int64_t(row) * stride)[column];
  }
}

/// Columns of rows to those of others, or zeros.
template <typename T>
__global__ void copy_kernel(const __grid_constant__ CopyView v, const int32_t* count) {
  const int64_t items = int64_t(*count) * v.columns;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < items;
       i += int64_t(gridDim.x) * kThreads) {
    const int64_t row = i / v.columns;
    const int32_t column = int32_t(i - row * v.columns);
    reinterpret_cast<T*>(v.to + row * v.to_stride)[column] =
        v.from ? reinterpret_cast<const T*>(v.from + row * v.from_stride)[column] : T(0);
  }
}

template <typename T>
__global__ void transpose_kernel(const T* in, T* out, const __grid_constant__ TransposeView v) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < v.count;
       i += int64_t(gridDim.x) * kThreads) {
    int64_t rest = i, offset = 0;
    for (int axis = v.axes - 1; axis >= 0; --axis) {
      offset += rest % v.out_dims[axis] * v.in_strides[axis];
      rest /= v.out_dims[axis];
    }
    out[i] = in[offset];
  }
}

template <typename T>
__global__ void pack_kernel(const DeviceFrame* frame, const char* rows, int32_t stride, int32_t channels,
                            const __grid_constant__ SitesView set, const int32_t* row_of_input, T* values,
                            Site* sites) {
  const int32_t count = row_of_input ? frame->sites : *set.count;
  const int64_t items = int64_t(count) * channels;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < items;
       i += int64_t(gridDim.x) * kThreads) {
    const int32_t to = int32_t(i / channels), c = int32_t(i - int64_t(to) * channels);
    const int32_t row = row_of_input ? row_of_input[to] : to;
    values[i] = row < 0 ? T(0) : reinterpret_cast<const T*>(rows + int64_t(row) * stride)[c];
    if (sites && c == 0) sites[to] = frame->indices[to];
  }
}

__global__ void publish_kernel(const DeviceFrame* frame, const int32_t* status, int32_t entries, int32_t sets,
                               const int32_t* limits, FailureHeader* failure) {
  wait_for_dependency();
  launch_dependents();
  bool wrong = false;
  for (int32_t i = threadIdx.x; i < entries; i += blockDim.x) {
    const int32_t value = __ldcg(status + i);
    const bool found = i >= kFound && i < kFound + sets;
    const bool first = i == kFirstOutside || i == kFirstDuplicate || i == kFirstNonFinite;
    wrong |= !first && (found ? value > limits[i - kFound] : value != 0);
  }
  if (!__syncthreads_or(wrong)) return;
  volatile FailureHeader* const header = failure;
  // An earlier failure waits for the host. The header is in its memory: far away, so good frames do not look.
  if (__syncthreads_or(threadIdx.x == 0 && header->set)) return;
  volatile int32_t* const copy = reinterpret_cast<int32_t*>(failure + 1);
  for (int32_t i = threadIdx.x; i < entries; i += blockDim.x) copy[i] = status[i];
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x) return;
  const auto site = [&](volatile Site& to, int32_t row) {
    if (row == kNoRow) return;
    const Site s = frame->indices[row];
    to.batch = s.batch;
    to.z = s.z;
    to.y = s.y;
    to.x = s.x;
  };
  site(header->outside, status[kFirstOutside]);
  site(header->duplicate, status[kFirstDuplicate]);
  header->sites = frame->sites;
  header->batch = frame->batch;
  __threadfence_system();
  header->set = 1;
}

/// The view of a load; without a frame if it is none of few channels.
LoadFewView load_few_view(const DeviceFrame* frame, const SitesView& set, int32_t channels,
                          const FinishView& finish, int32_t* row_of_input, int32_t* status) {
  LoadFewView view{};
  const EmissionView& e = finish.emissions[0];
  if (channels > LoadFewView::kChannels || finish.emission_count != 1 || e.type != ElementType::kFloat16 ||
      e.dense || e.activation.kind != ActivationKind::kNone || e.rounds_first || e.scale ||
      e.stride != 2 * LoadFewView::kChannels) {
    return view;
  }
  view.frame = frame;
  view.set = set;
  view.channels = channels;
  view.out = static_cast<char*>(e.out);
  view.row_of_input = row_of_input;
  view.status = status;
  return view;
}

}  // namespace

void load_rows(const DeviceFrame* frame, const SitesView& set, int32_t channels, const FinishView& finish,
               int32_t* row_of_input, int32_t* status, cudaStream_t stream) {
  const uint32_t blocks = blocks_for(set.capacity);
  const LoadFewView few = load_few_view(frame, set, channels, finish, row_of_input, status);
  if (few.frame) {
    launch_early(load_few_kernel, dim3(blocks), kThreads, 0, current_limits(), stream, few);
  } else {
    load_kernel<<<blocks, kThreads, 0, stream>>>(frame, set, channels, finish, row_of_input, status);
  }
  check_launch("load");
}

void finish_rows(const void* self, ElementType type, int32_t stride, const SitesView& set,
                 const FinishView& finish, cudaStream_t stream) {
  finish_kernel<<<blocks_for(set.capacity), kThreads, 0, stream>>>(static_cast<const char*>(self), type,
                                                                   stride, set.count, finish);
  check_launch("finishing rows");
}

void copy_columns(const CopyView& view, const SitesView& set, cudaStream_t stream) {
  const uint32_t blocks = blocks_for(int64_t(set.capacity) * view.columns);
  if (view.element == 1) {
    copy_kernel<uint8_t><<<blocks, kThreads, 0, stream>>>(view, set.count);
  } else if (view.element == 2) {
    copy_kernel<uint16_t><<<blocks, kThreads, 0, stream>>>(view, set.count);
  } else {
    copy_kernel<uint32_t><<<blocks, kThreads, 0, stream>>>(view, set.count);
  }
  check_launch("concat");
}

void scatter_rows(const void* rows, int32_t stride, const EmissionView& dense, const SitesView& set,
                  cudaStream_t stream) {
  const uint32_t blocks = blocks_for(int64_t(set.capacity) * dense.columns);
  const char* const from = static_cast<const char*>(rows);
  if (dense.type == ElementType::kFloat16) {
    scatter_kernel<uint16_t><<<blocks, kThreads, 0, stream>>>(from, stride, dense, set);
  } else {
    scatter_kernel<uint32_t><<<blocks, kThreads, 0, stream>>>(from, stride, dense, set);
  }
  check_launch("scatter_dense");
}

void transpose_dense(const void* in, void* out, const TransposeView& view, cudaStream_t stream) {
  const uint32_t blocks = blocks_for(view.count);
  if (view.element == 2) {
    transpose_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<const uint16_t*>(in),
                                                      static_cast<uint16_t*>(out), view);
  } else {
    transpose_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<const uint32_t*>(in),
                                                      static_cast<uint32_t*>(out), view);
  }
  check_launch("transpose");
}

void pack_rows(const DeviceFrame* frame, const void* rows, int32_t stride, int32_t element, int32_t channels,
               const SitesView& set, const int32_t* row_of_input, void* values, Site* sites,
               cudaStream_t stream) {
  const uint32_t blocks = blocks_for(int64_t(set.capacity) * channels);
  const char* const from = static_cast<const char*>(rows);
  if (element == 2) {
    pack_kernel<<<blocks, kThreads, 0, stream>>>(frame, from, stride, channels, set, row_of_input,
                                                 static_cast<uint16_t*>(values), sites);
  } else {
    pack_kernel<<<blocks, kThreads, 0, stream>>>(frame, from, stride, channels, set, row_of_input,
                                                 static_cast<uint32_t*>(values), sites);
  }
  check_launch("sparse result");
}

void publish_failure(const DeviceFrame* frame, const int32_t* status, int32_t entries, int32_t sets,
                     const int32_t* limits, FailureHeader* failure, cudaStream_t stream) {
  launch_early(publish_kernel, dim3(1), 128, 0, current_limits(), stream, frame, status, entries, sets,
               limits, failure);
  check_launch("status");
}

}  // namespace scn::cuda
