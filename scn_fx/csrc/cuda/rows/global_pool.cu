// SPDX-License-Identifier: Apache-2.0
// Pooling over all sites of a batch entry: a block makes one value per channel of each chunk of rows, a
// thread makes one of those of a batch entry. The order of all additions is that of the CPU.
#include "cuda/convolution/lost.cuh"
#include "cuda/rows/rows.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/launch.h"

namespace scn::cuda {
namespace {

constexpr int kThreads = 128;

uint32_t blocks_for(int64_t items) { return cuda::blocks_for(items, kThreads, 4096); }

/// The first row of each batch entry, and how many rows there are.
__global__ void entries_kernel(const __grid_constant__ GlobalPoolView v,
                               const __grid_constant__ SitesView set) {
  const int32_t rows = min(*set.count, set.capacity);
  for (int32_t entry = blockIdx.x * kThreads + threadIdx.x; entry <= set.batch;
       entry += gridDim.x * kThreads) {
    int32_t low = 0, high = rows;
    while (low < high) {
      const int32_t middle = low + (high - low) / 2;
      if (set.sites[middle].batch < entry) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    v.first[entry] = low;
  }
}

/// What a block makes: rows `from` to `to` of one batch entry; none if `to` is no more than `from`.
struct Chunk {
  int64_t from, to;
};
__device__ Chunk chunk_at(const GlobalPoolView& v, int32_t batch, int64_t place) {
  int32_t low = 0, high = batch;
  while (high - low > 1) {
    const int32_t middle = low + (high - low) / 2;
    if (chunk_place(v.first[middle], middle) <= place) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int64_t first = v.first[low], behind = v.first[low + 1];
  const int64_t from = first + (place - chunk_place(first, low)) * kPoolChunk;
  return {from, min(from + kPoolChunk, behind)};
}

template <typename T>
__global__ __launch_bounds__(kThreads) void chunks_kernel(const __grid_constant__ GlobalPoolView v,
                                                          const __grid_constant__ SitesView set) {
  __shared__ Chunk chunk;
  if (threadIdx.x == 0) chunk = chunk_at(v, set.batch, blockIdx.x);
  __syncthreads();
  const int64_t from = chunk.from, to = chunk.to;
  if (from >= to) return;
  for (int32_t c = threadIdx.x; c < v.channels; c += kThreads) {
    const auto at = [&](int64_t row) {
      return float(reinterpret_cast<const T*>(v.rows + row * v.stride)[c]);
    };
    double made = 0.0;
    if (v.kind == Pooling::kMax) {
      float best = at(from);
#pragma unroll 4
      for (int64_t row = from + 1; row < to; ++row) best = larger(best, at(row));
      made = double(best);
    } else {
#pragma unroll 8
      for (int64_t row = from; row < to; ++row) made = __dadd_rn(made, double(at(row)));
    }
    v.chunks[int64_t(blockIdx.x) * v.channels + c] = made;
  }
}

__global__ void results_kernel(const __grid_constant__ GlobalPoolView v,
                               const __grid_constant__ SitesView set) {
  const int64_t items = int64_t(set.batch) * v.channels;
  int32_t lost = 0;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < items;
       i += int64_t(gridDim.x) * kThreads) {
    const int32_t entry = int32_t(i / v.channels), c = int32_t(i - int64_t(entry) * v.channels);
    const int32_t first = v.first[entry], rows = v.first[entry + 1] - first;
    float y = 0.0f;
    if (rows > 0) {
      const double* const chunks = v.chunks + chunk_place(first, entry) * v.channels + c;
      const int32_t count = (rows - 1) / kPoolChunk + 1;
      // a sum of a chunk is no negative zero: the first one stands for zero and itself
      double made = chunks[0];
      for (int32_t k = 1; k < count; ++k) {
        const double more = chunks[int64_t(k) * v.channels];
        made = v.kind == Pooling::kMax ? double(larger(float(made), float(more))) : __dadd_rn(made, more);
      }
      if (v.kind == Pooling::kMean) made = __ddiv_rn(made, double(rows));
      y = __double2float_rn(made);
    }
    if (v.half) {
      static_cast<__half*>(v.out)[i] = __float2half_rn(through_half(y, lost));
    } else {
      static_cast<float*>(v.out)[i] = y;
    }
  }
  if (lost) atomicAdd(v.overflow, lost);
}

}  // namespace

void global_pool_rows(const GlobalPoolView& view, const SitesView& set, cudaStream_t stream) {
  const uint32_t places = uint32_t(chunk_place(set.capacity, set.batch));
  entries_kernel<<<blocks_for(int64_t(set.batch) + 1), kThreads, 0, stream>>>(view, set);
  if (view.type == ElementType::kFloat16) {
    chunks_kernel<__half><<<places, kThreads, 0, stream>>>(view, set);
  } else {
    chunks_kernel<float><<<places, kThreads, 0, stream>>>(view, set);
  }
  results_kernel<<<blocks_for(int64_t(set.batch) * view.channels), kThreads, 0, stream>>>(view, set);
  check_launch("global pooling");
}

}  // namespace scn::cuda
