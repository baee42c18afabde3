// SPDX-License-Identifier: Apache-2.0
// Convolutions whose float32 sums have a specified order: a chain of fused multiply-adds, offsets ascending, then
// channels. Input layers run here in float16 (bit-exact everywhere), and all layers in float32 mode.
#pragma once

#include "cuda/convolution.h"
#include "cuda/finish.cuh"
#include "cuda/lookup.cuh"

namespace scn::cuda {

constexpr int32_t kChainColumns = 8;   // of one thread
constexpr int32_t kChainThreads = 128;

struct ChainParams {
  MapView map;
  const char* x;
  int32_t x_stride, in_channels, padded;
  const float* weights;  // [offset, in channel, padded]
  FinishView finish;
};

/// Writes one thread's columns of one row.
__device__ __forceinline__ void store_chain(const EmissionView& e, const SitesView& sites, int32_t row, int32_t column,
                                            float v) {
  if (column >= e.columns) return;
  if (e.dense) {
    const Site s = sites.sites[row];
    const int64_t cell = (int64_t(s.z) * sites.shape[1] + s.y) * sites.shape[2] + s.x;
    const int64_t at = (int64_t(s.batch) * e.columns + column) * e.cells + cell;
    if (e.form == Form::kHalf) {
      static_cast<__half*>(e.out)[at] = __float2half_rn(v);
    } else {
      static_cast<float*>(e.out)[at] = v;
    }
    return;
  }
  char* const at = static_cast<char*>(e.out) + int64_t(row) * e.stride;
  if (e.form == Form::kInt8) {
    reinterpret_cast<int8_t*>(at)[column] = int8_t(int32_t(v));
  } else if (e.form == Form::kHalf) {
    reinterpret_cast<__half*>(at)[column] = __float2half_rn(v);
  } else {
    reinterpret_cast<float*>(at)[column] = v;
  }
}

template <typename X>
__device__ __forceinline__ float x_value(const char* row, int32_t c) {
  if (sizeof(X) == 2) return __half2float(reinterpret_cast<const __half*>(row)[c]);
  return reinterpret_cast<const float*>(row)[c];
}

/// Finishes and stores the columns [column, column + kChainColumns) of a row.
__device__ __forceinline__ void finish_chain(const FinishView& f, const SitesView& sites, int32_t row, int32_t column,
                                             float (&y)[kChainColumns], Lost& lost) {
  int32_t stored[kChainColumns] = {};
#pragma unroll
  for (int i = 0; i < kChainColumns; ++i) {
    if (column + i < f.channels) {
      float v = __fadd_rn(y[i], f.bias[column + i]);
      if (f.relu) v = relu(v);
      if (f.through_half) v = through_half(v, lost.before_add);
      if (f.residual.kind != Operand::kNone)
        v = add_operands(f.residual, v, other_operand(f.residual, row, column + i), false, lost);
      y[i] = v;
    } else {
      y[i] = 0.0f;
    }
  }
  for (int32_t which = 0; which < f.emission_count; ++which) {
    const EmissionView& e = f.emissions[which];
#pragma unroll
    for (int i = 0; i < kChainColumns; ++i) {
      int32_t once = 0;
      store_chain(e, sites, row, column + i, emitted(e, y[i], once));
      stored[i] = max(stored[i], once);
    }
  }
#pragma unroll
  for (int i = 0; i < kChainColumns; ++i) lost.stored += stored[i];
}

/// A thread takes a row and eight columns at a time; two threads share a row.
template <typename X>
__global__ __launch_bounds__(kChainThreads) void chain_convolution(const __grid_constant__ ChainParams p) {
  const MapView& map = p.map;
  const int32_t volume = map.geometry.volume;
  const int32_t count = *map.output.count, tiles = (count + kTileRows - 1) / kTileRows;
  const int32_t in_tile = threadIdx.x / 2, side = threadIdx.x % 2 * kChainColumns;
  Lost lost;
  for (int32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int32_t row = tile * kTileRows + in_tile;
    const bool present = row < count;
    const bool wide = map.list_length[tile] < 0;
    const int32_t* const list = map.list + int64_t(tile) * map.list_capacity;
    const uint16_t* const local = map.local + int64_t(tile) * volume * kTileRows + in_tile;
    const Site site = wide && present ? map.output.sites[row] : Site{};
    for (int32_t column = blockIdx.y * 2 * kChainColumns; column < p.padded; column += gridDim.y * 2 * kChainColumns) {
      float y[kChainColumns] = {};
      for (int32_t k = 0; k < volume; ++k) {
        int32_t source = -1;
        if (present) {
          if (wide) {
            source = find_neighbour(map, site, k);
          } else {
            const int32_t entry = local[k * kTileRows];
            source = entry ? list[entry - 1] : -1;
          }
        }
        if (!__any_sync(0xffffffffu, source >= 0)) continue;
        if (source < 0) continue;
        const char* const x = p.x + int64_t(source) * p.x_stride;
        const float* w = p.weights + int64_t(k) * p.in_channels * p.padded + column + side;
        for (int32_t c = 0; c < p.in_channels; ++c, w += p.padded) {
          const float v = x_value<X>(x, c);
          const float4 w0 = __ldg(reinterpret_cast<const float4*>(w)), w1 = __ldg(reinterpret_cast<const float4*>(w) + 1);
          y[0] = __fmaf_rn(v, w0.x, y[0]);
          y[1] = __fmaf_rn(v, w0.y, y[1]);
          y[2] = __fmaf_rn(v, w0.z, y[2]);
          y[3] = __fmaf_rn(v, w0.w, y[3]);
          y[4] = __fmaf_rn(v, w1.x, y[4]);
          y[5] = __fmaf_rn(v, w1.y, y[5]);
          y[6] = __fmaf_rn(v, w1.z, y[6]);
          y[7] = __fmaf_rn(v, w1.w, y[7]);
        }
      }
      if (present) finish_chain(p.finish, map.output, row, column + side, y, lost);
    }
  }
  report_lost(p.finish, lost);
}

/// Input layers in float16 with eight channels or fewer: a row is one 16-byte load, weights lie in shared memory, the
/// neighbours of a tile in a table.
__global__ __launch_bounds__(kChainThreads) void input_convolution(const __grid_constant__ ChainParams p) {
  extern __shared__ __align__(16) float weights[];
  const MapView& map = p.map;
  const int32_t volume = map.geometry.volume, width = 2 * kChainColumns;
  const int32_t first_column = blockIdx.y * width;
  for (int32_t i = threadIdx.x; i < volume * p.in_channels * width; i += kChainThreads)
    weights[i] = p.weights[int64_t(i / width) * p.padded + first_column + i % width];
  __syncthreads();
  const int32_t count = *map.output.count, tiles = (count + kTileRows - 1) / kTileRows;
  const int32_t in_tile = threadIdx.x / 2, side = threadIdx.x % 2 * kChainColumns;
  Lost lost;
  for (int32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int32_t row = tile * kTileRows + in_tile;
    const bool present = row < count;
    const bool wide = map.list_length[tile] < 0;
    const int32_t* const list = map.list + int64_t(tile) * map.list_capacity;
    const uint16_t* const local = map.local + int64_t(tile) * volume * kTileRows + in_tile;
    const Site site = wide && present ? map.output.sites[row] : Site{};
    float y[kChainColumns] = {};
    constexpr int32_t kAhead = 9;  // offsets whose rows are loaded together
    for (int32_t first = 0; first < volume; first += kAhead) {
      int32_t source[kAhead];
      uint4 x[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        source[i] = -1;
        if (!present || first + i >= volume) continue;
        if (wide) {
          source[i] = find_neighbour(map, site, first + i);
        } else {
          const int32_t entry = local[(first + i) * kTileRows];
          if (entry) source[i] = list[entry - 1];
        }
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        x[i] = make_uint4(0, 0, 0, 0);
        if (source[i] >= 0) x[i] = __ldg(reinterpret_cast<const uint4*>(p.x + int64_t(source[i]) * p.x_stride));
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (!__any_sync(0xffffffffu, source[i] >= 0)) continue;
        const float* w = weights + (first + i) * p.in_channels * width + side;
        const __half2* const pairs = reinterpret_cast<const __half2*>(&x[i]);
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          if (c >= p.in_channels) break;
          // A missing neighbour adds zeros, which changes no sum: sums start at +0 and +0 + -0 is +0.
          const float v = c % 2 ? __high2float(pairs[c / 2]) : __low2float(pairs[c / 2]);
          const float4 w0 = *reinterpret_cast<const float4*>(w + c * width);
          const float4 w1 = *reinterpret_cast<const float4*>(w + c * width + 4);
          y[0] = __fmaf_rn(v, w0.x, y[0]);
          y[1] = __fmaf_rn(v, w0.y, y[1]);
          y[2] = __fmaf_rn(v, w0.z, y[2]);
          y[3] = __fmaf_rn(v, w0.w, y[3]);
          y[4] = __fmaf_rn(v, w1.x, y[4]);
          y[5] = __fmaf_rn(v, w1.y, y[5]);
          y[6] = __fmaf_rn(v, w1.z, y[6]);
          y[7] = __fmaf_rn(v, w1.w, y[7]);
        }
      }
    }
    if (present) finish_chain(p.finish, map.output, row, first_column + side, y, lost);
  }
  report_lost(p.finish, lost);
}

inline void launch_chain(const MapView& map, const void* x, const DeviceWeights& w, const FinishView& finish,
                         const DeviceLimits& limits, cudaStream_t stream) {
  ChainParams p{};
  p.map = map;
  p.x = static_cast<const char*>(x);
  p.x_stride = w.in_bytes;
  p.in_channels = w.in_channels;
  p.padded = w.padded;
  p.weights = reinterpret_cast<const float*>(w.packed.data());
  p.finish = finish;
  const int32_t tiles = (map.output.capacity + kTileRows - 1) / kTileRows;
  const uint32_t column_blocks = uint32_t(w.padded / (2 * kChainColumns));
  const uint32_t blocks = uint32_t(std::max(1, std::min(tiles, limits.multiprocessors * 12)));
  const int32_t shared = map.geometry.volume * w.in_channels * 2 * kChainColumns * 4;
  if (w.product == Product::kChainHalf && shared <= 48 * 1024) {
    input_convolution<<<dim3(blocks, column_blocks), kChainThreads, size_t(shared), stream>>>(p);
  } else if (w.product == Product::kChainHalf) {
    chain_convolution<__half><<<dim3(blocks, column_blocks), kChainThreads, 0, stream>>>(p);
  } else {
    chain_convolution<float><<<dim3(blocks, column_blocks), kChainThreads, 0, stream>>>(p);
  }
  check_launch("input convolution");
}

}  // namespace scn::cuda
