// SPDX-License-Identifier: Apache-2.0
// Convolutions whose float32 sums have a specified order: a chain of fused multiply-adds, offsets ascending,
// then channels. Input layers run here in float16 (bit-exact everywhere), and all layers in float32 mode.
#include "cuda/convolution/chain/chain_finish.cuh"
#include "cuda/convolution/chain/chain_params.h"
#include "cuda/runtime/device_code.cuh"
#include "cuda/sites/lookup.cuh"

namespace scn::cuda {

namespace {

template <typename X>
__device__ __forceinline__ float x_value(const char* row, int32_t c) {
  if (sizeof(X) == 2) return __half2float(reinterpret_cast<const __half*>(row)[c]);
  return reinterpret_cast<const float*>(row)[c];
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
    for (int32_t column = blockIdx.y * 2 * kChainColumns + side; column < p.padded;
         column += gridDim.y * 2 * kChainColumns) {
      ChainValues y = {};
      for (int32_t k = 0; k < volume; ++k) {
        const int32_t source = mapped_row(map, record, k, row_place(in_tile));
        if (source < 0) continue;
        const char* const x = p.x + int64_t(source) * p.x_stride;
        const float* w = p.weights + int64_t(k) * p.in_channels * p.padded + column;
        for (int32_t c = 0; c < p.in_channels; ++c, w += p.padded) {
          const float v = x_value<X>(x, c);
          const float4 w0 = __ldg(reinterpret_cast<const float4*>(w)),
                       w1 = __ldg(reinterpret_cast<const float4*>(w) + 1);
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
      if (row < count) finish_chain(p.finish, map.output, row, column, y, lost);
    }
  }
  report_lost(p.finish, lost);
}

// Input layers in float16 with eight channels or fewer. A warp takes half a tile at a time; a thread takes
// the two rows whose distances stand side by side and eight of 16 columns. Each weight that it reads from
// shared memory serves two rows, and the warp leaves out an offset for either half of its rows that has no
// neighbour there.

constexpr int kInputWarps = kChainThreads / 32;
static_assert(kTileRows == 2 * kInputRows && kInputColumns == 2 * kChainColumns, "as above");

/// Channel c of an input row. Of a word that ends with the last channel, the compiler would keep the used
/// half only, and wait for the row where it is loaded to put two such halves together; a permutation hides
/// that.
__device__ __forceinline__ float channel_of(const uint4& x, int c, bool last) {
  uint32_t word = c < 2 ? x.x : c < 4 ? x.y : c < 6 ? x.z : x.w;
  const bool alone = last && c % 2 == 0;
  if (alone) word = __byte_perm(word, 0u, 0x1044);
  const __half2 pair = *reinterpret_cast<const __half2*>(&word);
  return alone || c % 2 ? __high2float(pair) : __low2float(pair);
}

/// The products of one offset for the first, the second or both rows. A missing neighbour adds zeros, which
/// changes no sum: sums start at +0 and +0 + -0 is +0.
template <int kChannels, bool kFirst, bool kSecond>
__device__ __forceinline__ void add_products(ChainValues (&y)[2], const uint4 (&x)[2],
                                             const float4* weights) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const float4 w0 = weights[c * (kInputColumns / 4)], w1 = weights[c * (kInputColumns / 4) + 1];
#pragma unroll
    for (int r = kFirst ? 0 : 1; r < (kSecond ? 2 : 1); ++r) {
      const float v = channel_of(x[r], c, c == kChannels - 1);
      y[r][0] = __fmaf_rn(v, w0.x, y[r][0]);
      y[r][1] = __fmaf_rn(v, w0.y, y[r][1]);
      y[r][2] = __fmaf_rn(v, w0.z, y[r][2]);
      y[r][3] = __fmaf_rn(v, w0.w, y[r][3]);
      y[r][4] = __fmaf_rn(v, w1.x, y[r][4]);
      y[r][5] = __fmaf_rn(v, w1.y, y[r][5]);
      y[r][6] = __fmaf_rn(v, w1.z, y[r][6]);
      y[r][7] = __fmaf_rn(v, w1.w, y[r][7]);
    }
  }
}

/// What an offset of the map's record, that is no far one, says of a thread's two rows.
struct Sources {
  uint32_t base, distances;

  template <int kRow>
  __device__ __forceinline__ bool has() const {
    return (kRow ? distances >> 16 : distances & 0xffffu) != uint32_t(kNoNeighbour);
  }
};

__device__ __forceinline__ void load_inputs(const uint4* input, const Sources& s, uint4 (&x)[2]) {
  x[0] = x[1] = make_uint4(0, 0, 0, 0);
  if (s.has<0>()) x[0] = input[s.base + (s.distances & 0xffffu)];
  if (s.has<1>()) x[1] = input[s.base + (s.distances >> 16)];
}

/// Blocks that registers leave room for. Five are 660 on an H100: all half tiles of 84,480 rows at once.
constexpr int input_blocks(int channels) { return channels > 5 ? 4 : 5; }

template <int kChannels>
__global__ __launch_bounds__(kChainThreads, input_blocks(kChannels)) void input_convolution(
    const __grid_constant__ ChainParams p) {
  constexpr int kQuads = kInputColumns / 4, kAllWeights = kChannels * kQuads;
  extern __shared__ __align__(16) char shared[];
  const MapView& map = p.map;
  const int32_t volume = map.geometry.volume, lane = threadIdx.x % 32, pair = lane / 2, side = lane % 2;
  const int32_t column = int32_t(blockIdx.y) * kInputColumns + side * kChainColumns;
  float4* const weights = reinterpret_cast<float4*>(shared);  // [offset, channel, column / 4]
  for (int32_t i = threadIdx.x; i < volume * kAllWeights; i += kChainThreads) {
    const int32_t c = i / kQuads % kChannels, k = i / kAllWeights;
    if (c < p.in_channels) {
      const int64_t at = (int64_t(k) * p.in_channels + c) * p.padded + blockIdx.y * kInputColumns;
      copy_async(shared_address(weights + i), reinterpret_cast<const float4*>(p.weights + at) + i % kQuads);
    } else {
      weights[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
  }
  wait_for_dependency();
  launch_dependents();
  // The first-level cache may hold lines from before the kernels before wrote them.
  if (threadIdx.x == 0) acquire_device(map.output.count);
  wait_copies();
  __syncthreads();

  // Plain loads: the read-only path could be asked before the wait.
  const uint4* const input = reinterpret_cast<const uint4*>(p.x);
  const int32_t count = *map.output.count, most = (map.output.capacity + kInputRows - 1) / kInputRows;
  Lost lost;
  // Neighbouring half tiles go to different multiprocessors: some regions have several times the neighbours
  // of others.
  for (int32_t half_tile = int32_t(threadIdx.x / 32) * int32_t(gridDim.x) + int32_t(blockIdx.x);
       half_tile < most; half_tile += int32_t(gridDim.x) * kInputWarps) {
    const char* const record = map.tiles + int64_t(half_tile / 2) * map.tile_bytes;
    const int32_t* const bases = reinterpret_cast<const int32_t*>(record + bases_at(volume));
    const int32_t place = half_tile % 2 * kInputRows + pair * 2;
    const uint32_t* const distances = reinterpret_cast<const uint32_t*>(record + place * 2);
    const auto sources_of = [&](int32_t k) {
      k = min(k, volume - 1);
      return Sources{uint32_t(bases[k]), distances[k * (kTileRows / 2)]};
    };
    Sources now = sources_of(0), next = sources_of(1);  // perhaps of a tile that does not exist
    bool far = false;
#pragma unroll 1
    for (int32_t k = lane; k < volume; k += 32) far |= bases[k] < 0;
    if (half_tile * kInputRows >= count) break;
    ChainValues y[2] = {};
    const float4* w = weights + side * (kChainColumns / 4);
    if (!__any_sync(0xffffffffu, far)) {
      uint4 x[2], next_x[2];
      load_inputs(input, now, x);
#pragma unroll 2
      for (int32_t k = 0; k < volume; ++k, w += kAllWeights) {
        const Sources after = sources_of(k + 2);
        load_inputs(input, next, next_x);
        const bool first = __any_sync(0xffffffffu, now.has<0>()),
                   second = __any_sync(0xffffffffu, now.has<1>());
        if (first && second) {
          add_products<kChannels, true, true>(y, x, w);
        } else if (first) {
          add_products<kChannels, true, false>(y, x, w);
        } else if (second) {
          add_products<kChannels, false, true>(y, x, w);
        }
        now = next;
        next = after;
        x[0] = next_x[0];
        x[1] = next_x[1];
      }
    } else {
#pragma unroll 1
      for (int32_t k = 0; k < volume; ++k, w += kAllWeights) {
        uint4 x[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int32_t row = mapped_row(map, record, k, place + r);
          x[r] = row >= 0 ? input[row] : make_uint4(0, 0, 0, 0);
        }
        add_products<kChannels, true, true>(y, x, w);
      }
    }
    int32_t row = half_tile * kInputRows + pair / 8 * 16 + pair % 8;
#pragma unroll 1
    for (int r = 0; r < 2; ++r, row += 8) {  // a loop for its small code
      if (row < count) finish_chain(p.finish, map.output, row, column, y[0], lost);
#pragma unroll
      for (int i = 0; i < kChainColumns; ++i) y[0][i] = y[1][i];
    }
  }
  report_lost(p.finish, lost);
}

}  // namespace

namespace chain {

const void* kernel(ElementType rows) {
  return rows == ElementType::kFloat32 ? reinterpret_cast<const void*>(&chain_convolution<float>)
                                       : reinterpret_cast<const void*>(&chain_convolution<__half>);
}

}  // namespace chain

namespace input_chain {

const void* kernel(int32_t channels) {
  return channels == 4   ? reinterpret_cast<const void*>(&input_convolution<4>)
         : channels == 5 ? reinterpret_cast<const void*>(&input_convolution<5>)
                         : reinterpret_cast<const void*>(&input_convolution<8>);
}

}  // namespace input_chain

}  // namespace scn::cuda
