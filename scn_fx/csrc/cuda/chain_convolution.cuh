// SPDX-License-Identifier: Apache-2.0
// Convolutions whose float32 sums have a specified order: a chain of fused multiply-adds, offsets ascending,
// then channels. Input layers run here in float16 (bit-exact everywhere), and all layers in float32 mode.
#pragma once

#include "cuda/convolution.h"
#include "cuda/finish.cuh"
#include "cuda/lookup.cuh"

namespace scn::cuda {

constexpr int32_t kChainColumns = 8;  // of one thread
constexpr int32_t kChainThreads = 128;

struct ChainParams {
  MapView map;
  const char* x;
  int32_t x_stride, in_channels, padded;
  const float* weights;  // [offset, in channel, padded]
  FinishView finish;
};

/// Writes four columns of one row.
__device__ __forceinline__ void store_chain(const EmissionView& e, const SitesView& sites, int32_t row,
                                            int32_t column, const float (&v)[4]) {
  if (column >= e.columns) return;
  if (e.dense) {
    const Site s = sites.sites[row];
    const int64_t cell = (int64_t(s.z) * sites.shape[1] + s.y) * sites.shape[2] + s.x;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (column + i >= e.columns) return;
      const int64_t at = (int64_t(s.batch) * e.columns + column + i) * e.cells + cell;
      if (e.form == Form::kHalf) {
        static_cast<__half*>(e.out)[at] = __float2half_rn(v[i]);
      } else {
        static_cast<float*>(e.out)[at] = v[i];
      }
    }
    return;
  }
  // Rows are whole 16-byte chunks, so four columns are all inside or all outside.
  char* const at = static_cast<char*>(e.out) + int64_t(row) * e.stride;
  if (e.form == Form::kInt8) {
    const char4 four = make_char4(int8_t(int32_t(v[0])), int8_t(int32_t(v[1])), int8_t(int32_t(v[2])),
                                  int8_t(int32_t(v[3])));
    *reinterpret_cast<char4*>(at + column) = four;
  } else if (e.form == Form::kHalf) {
    const __half2 low = __floats2half2_rn(v[0], v[1]), high = __floats2half2_rn(v[2], v[3]);
    *reinterpret_cast<uint2*>(at + column * 2) =
        make_uint2(*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high));
  } else {
    *reinterpret_cast<float4*>(at + column * 4) = make_float4(v[0], v[1], v[2], v[3]);
  }
}

template <typename X>
__device__ __forceinline__ float x_value(const char* row, int32_t c) {
  if (sizeof(X) == 2) return __half2float(reinterpret_cast<const __half*>(row)[c]);
  return reinterpret_cast<const float*>(row)[c];
}

/// Finishes and stores kColumns columns of the rows [row, end), kRows at most.
template <int kRows, int kColumns>
__device__ __forceinline__ void finish_chain(const FinishView& f, const SitesView& sites, int32_t row,
                                             int32_t end, int32_t column, float (&y)[kRows][kColumns],
                                             Lost& lost) {
  static_assert(kRows * kColumns <= 32 && kColumns % 4 == 0, "a bit per value, stores of four columns");
  uint32_t stored = 0;  // values that were lost, however many emissions lost them
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const bool real = column + i < f.channels;
    const float bias = real ? __ldg(f.bias + column + i) : 0.0f;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float v = 0.0f;
      if (real && row + r < end) {
        v = __fadd_rn(y[r][i], bias);
        if (f.relu) v = relu(v);
        if (f.through_half) v = through_half(v, lost.before_add);
        if (f.residual.kind != Operand::kNone)
          v = add_operands(f.residual, v, other_operand(f.residual, row + r, column + i), false, lost);
      }
      y[r][i] = v;
    }
  }
  for (int32_t which = 0; which < f.emission_count; ++which) {
    const EmissionView& e = f.emissions[which];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int first = 0; first < kColumns; first += 4) {
        float v[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          int32_t once = 0;
          v[i] = emitted(e, y[r][first + i], once);
          stored |= uint32_t(once) << (r * kColumns + first + i);
        }
        if (row + r < end) store_chain(e, sites, row + r, column + first, v);
      }
    }
  }
  lost.stored += __popc(stored);
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
    const char* const record = map.tiles + int64_t(tile) * map.tile_bytes;
    for (int32_t column = blockIdx.y * 2 * kChainColumns; column < p.padded;
         column += gridDim.y * 2 * kChainColumns) {
      float y[1][kChainColumns] = {};
      for (int32_t k = 0; k < volume; ++k) {
        const int32_t source = mapped_row(map, record, k, row_place(in_tile));
        if (source < 0) continue;
        const char* const x = p.x + int64_t(source) * p.x_stride;
        const float* w = p.weights + int64_t(k) * p.in_channels * p.padded + column + side;
        for (int32_t c = 0; c < p.in_channels; ++c, w += p.padded) {
          const float v = x_value<X>(x, c);
          const float4 w0 = __ldg(reinterpret_cast<const float4*>(w)),
                       w1 = __ldg(reinterpret_cast<const float4*>(w) + 1);
          y[0][0] = __fmaf_rn(v, w0.x, y[0][0]);
          y[0][1] = __fmaf_rn(v, w0.y, y[0][1]);
          y[0][2] = __fmaf_rn(v, w0.z, y[0][2]);
          y[0][3] = __fmaf_rn(v, w0.w, y[0][3]);
          y[0][4] = __fmaf_rn(v, w1.x, y[0][4]);
          y[0][5] = __fmaf_rn(v, w1.y, y[0][5]);
          y[0][6] = __fmaf_rn(v, w1.z, y[0][6]);
          y[0][7] = __fmaf_rn(v, w1.w, y[0][7]);
        }
      }
      if (row < count) finish_chain(p.finish, map.output, row, row + 1, column + side, y, lost);
    }
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
  if (w.product == Product::kChainFloat) {
    chain_convolution<float><<<dim3(blocks, column_blocks), kChainThreads, 0, stream>>>(p);
  } else {
    chain_convolution<__half><<<dim3(blocks, column_blocks), kChainThreads, 0, stream>>>(p);
  }
  check_launch("input convolution");
}

}  // namespace scn::cuda
