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
constexpr int32_t kInputColumns = 16;  // of one block of input_convolution
constexpr int32_t kStagedRows = 512;   // input rows of a tile that input_convolution keeps in shared memory

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
    const bool present = row < count;
    const bool wide = map.list_length[tile] < 0;
    const int32_t* const list = map.list + int64_t(tile) * map.list_capacity;
    const uint16_t* const local = map.local + int64_t(tile) * volume * kTileRows + in_tile;
    const Site site = wide && present ? map.output.sites[row] : Site{};
    for (int32_t column = blockIdx.y * 2 * kChainColumns; column < p.padded;
         column += gridDim.y * 2 * kChainColumns) {
      float y[1][kChainColumns] = {};
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
      if (present) finish_chain(p.finish, map.output, row, row + 1, column + side, y, lost);
    }
  }
  report_lost(p.finish, lost);
}

/// Input layers in float16 with eight channels or fewer. A block takes two tiles, a warp half of one; a
/// thread takes four rows and four columns of 16, since each value that it reads from shared memory must
/// serve several multiply-adds. Weights and the tiles' input rows lie in shared memory; row 0 stands for a
/// missing neighbour.
template <int kChannels>
__global__ __launch_bounds__(kChainThreads) void input_convolution(const __grid_constant__ ChainParams p) {
  constexpr int kRows = 4, kColumns = 4, kGroups = kInputColumns / kColumns, kAhead = 4;
  static_assert(kChainThreads == 2 * kTileRows && kRows * 32 / kGroups == 32, "a warp takes 32 rows");
  extern __shared__ __align__(16) char shared[];
  const MapView& map = p.map;
  const int32_t volume = map.geometry.volume;
  const int32_t thread = threadIdx.x % kTileRows, lane = threadIdx.x % 32, side = threadIdx.x / kTileRows;
  const int32_t in_row = thread / 32 * 32;                  // the warp's first row in the tile
  const int32_t in_tile = in_row + lane / kGroups * kRows;  // the thread's first row
  const int32_t group = lane % kGroups;
  const int32_t column = int32_t(blockIdx.y) * kInputColumns + group * kColumns;

  float4* const weights = reinterpret_cast<float4*>(shared);  // [offset, channel, column / 4]
  char* const own = shared + volume * kChannels * kInputColumns * 4 +
                    side * (volume * kTileRows * 2 + (kStagedRows + 1) * 16);
  uint16_t* const local = reinterpret_cast<uint16_t*>(own);                    // the tile's part of the map
  uint4* const rows = reinterpret_cast<uint4*>(own + volume * kTileRows * 2);  // the tile's input rows
  if (thread == 0) rows[0] = make_uint4(0, 0, 0, 0);

  const int32_t count = *map.output.count, tiles = (count + kTileRows - 1) / kTileRows;
  if (int32_t(blockIdx.x) * 2 >= tiles) return;
  for (int32_t i = threadIdx.x; i < volume * kChannels * kGroups; i += kChainThreads) {
    const int32_t c = i / kGroups % kChannels, k = i / (kGroups * kChannels);
    float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (c < p.in_channels) {
      const int64_t at = (int64_t(k) * p.in_channels + c) * p.padded + blockIdx.y * kInputColumns;
      four = __ldg(reinterpret_cast<const float4*>(p.weights + at) + i % kGroups);
    }
    weights[i] = four;
  }
  Lost lost;
  for (int32_t pair = blockIdx.x; pair * 2 < tiles; pair += gridDim.x) {
    const int32_t tile = pair * 2 + side;
    const bool exists = tile < tiles;
    int32_t length = 0;
    const int32_t* const list = map.list + int64_t(tile) * map.list_capacity;
    __syncthreads();  // the tiles before are done with shared memory
    if (exists) {
      int32_t source[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {  // perhaps beyond the list's end, but not read through then
        const int32_t at = thread + i * kTileRows;
        source[i] = at < map.list_capacity ? __ldg(list + at) : 0;
      }
      length = map.list_length[tile];
      const uint4* const from =
          reinterpret_cast<const uint4*>(map.local + int64_t(tile) * volume * kTileRows);
#pragma unroll 4
      for (int32_t i = thread; i < volume * kTileRows / 8; i += kTileRows)
        reinterpret_cast<uint4*>(local)[i] = __ldg(from + i);
      if (length <= kStagedRows) {
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
          const int32_t at = thread + i * kTileRows;
          if (at < length)
            rows[1 + at] = __ldg(reinterpret_cast<const uint4*>(p.x + int64_t(source[i]) * p.x_stride));
        }
        for (int32_t at = thread + kAhead * kTileRows; at < length; at += kTileRows)
          rows[1 + at] = __ldg(reinterpret_cast<const uint4*>(p.x + int64_t(__ldg(list + at)) * p.x_stride));
      }
    }
    __syncthreads();
    if (!exists) continue;
    const bool wide = length < 0, staged = !wide && length <= kStagedRows;
    const int32_t lane_row = tile * kTileRows + in_row + lane;
    const Site site = wide && lane_row < count ? map.output.sites[lane_row] : Site{};
    float y[kRows][kColumns] = {};
    for (int32_t k = 0; k < volume; ++k) {
      uint4 x[kRows];
      bool used[kRows];  // by any of the eight rows that are this one in their threads
      if (staged) {
        const uint2 packed = *reinterpret_cast<const uint2*>(local + k * kTileRows + in_tile);
        const uint32_t entry[kRows] = {packed.x & 0xffffu, packed.x >> 16, packed.y & 0xffffu,
                                       packed.y >> 16};
#pragma unroll
        for (int r = 0; r < kRows; ++r) used[r] = __any_sync(0xffffffffu, entry[r] != 0);
        if (!(used[0] || used[1] || used[2] || used[3])) continue;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (used[r]) x[r] = rows[entry[r]];
        }
      } else {  // too many rows: each lane fetches one of the warp's 32
        int32_t from = -1;
        if (wide) {
          if (lane_row < count) from = find_neighbour(map, site, k);
        } else {
          const int32_t entry = local[k * kTileRows + in_row + lane];
          if (entry) from = __ldg(list + entry - 1);
        }
        if (!__any_sync(0xffffffffu, from >= 0)) continue;
        uint4 value = make_uint4(0, 0, 0, 0);
        if (from >= 0) value = __ldg(reinterpret_cast<const uint4*>(p.x + int64_t(from) * p.x_stride));
        __syncwarp();
        rows[1 + in_row + lane] = value;
        __syncwarp();
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          x[r] = rows[1 + in_tile + r];
          used[r] = true;
        }
      }
      float4 w[kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) w[c] = weights[(k * kChannels + c) * kGroups + group];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (!used[r]) continue;
        const __half2* const pairs = reinterpret_cast<const __half2*>(&x[r]);
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          // A missing neighbour adds zeros, which changes no sum: sums start at +0 and +0 + -0 is +0.
          const float v = c % 2 ? __high2float(pairs[c / 2]) : __low2float(pairs[c / 2]);
          y[r][0] = __fmaf_rn(v, w[c].x, y[r][0]);
          y[r][1] = __fmaf_rn(v, w[c].y, y[r][1]);
          y[r][2] = __fmaf_rn(v, w[c].z, y[r][2]);
          y[r][3] = __fmaf_rn(v, w[c].w, y[r][3]);
        }
      }
    }
    finish_chain(p.finish, map.output, tile * kTileRows + in_tile, count, column, y, lost);
  }
  report_lost(p.finish, lost);
}

/// Whether input_convolution fits into shared memory; if so, launches it.
template <int kChannels>
bool launch_input(const ChainParams& p, const DeviceLimits& limits, cudaStream_t stream) {
  const int32_t volume = p.map.geometry.volume, tiles = (p.map.output.capacity + kTileRows - 1) / kTileRows;
  const int64_t shared = int64_t(volume) * kChannels * kInputColumns * 4 +
                         2 * (int64_t(volume) * kTileRows * 2 + (kStagedRows + 1) * 16);
  if (shared > limits.shared_bytes) return false;
  if (shared > 48 * 1024) {
    check(cudaFuncSetAttribute(input_convolution<kChannels>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               int(shared)),
          "asking for the shared memory of an input convolution");
  }
  const uint32_t blocks = uint32_t(std::max(1, std::min((tiles + 1) / 2, limits.multiprocessors * 6)));
  input_convolution<kChannels>
      <<<dim3(blocks, uint32_t(p.padded / kInputColumns)), kChainThreads, size_t(shared), stream>>>(p);
  return true;
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
    const bool launched = w.in_channels <= 4   ? launch_input<4>(p, limits, stream)
                          : w.in_channels == 5 ? launch_input<5>(p, limits, stream)
                                               : launch_input<8>(p, limits, stream);
    if (!launched) chain_convolution<__half><<<dim3(blocks, column_blocks), kChainThreads, 0, stream>>>(p);
  }
  check_launch("input convolution");
}

}  // namespace scn::cuda
