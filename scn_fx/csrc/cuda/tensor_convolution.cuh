// SPDX-License-Identifier: Apache-2.0
// The tensor-core convolution. A block takes one tile of 64 output rows after another: it copies the distinct input
// rows of the tile to shared memory once, then every offset reads its rows there through ldmatrix, whose lanes may
// point anywhere. Weights come fragment by fragment through the first-level cache, which the blocks of a
// multiprocessor share.
#pragma once

#include "cuda/finish.cuh"
#include "cuda/lookup.cuh"
#include "cuda/mma.cuh"
#include "cuda/tensor_params.h"

namespace scn::cuda {

__device__ __forceinline__ int32_t form_size(Form form) {
  return form == Form::kInt8 ? 1 : form == Form::kHalf ? 2 : 4;
}

/// Copies the block's columns of the staged rows to memory, 16 bytes at a time.
template <int N, int Threads>
__device__ __forceinline__ void store_rows(const EmissionView& e, const char* stage, int32_t stage_stride,
                                           int32_t first_row, int32_t present, int32_t first_column) {
  const int32_t element = form_size(e.form);
  const int32_t chunks = min(N, e.columns - first_column) * element / 16;
  char* const out = static_cast<char*>(e.out) + int64_t(first_row) * e.stride + first_column * element;
  for (int32_t i = threadIdx.x; i < present * chunks; i += Threads) {
    const int32_t row = i / chunks, chunk = i - row * chunks;
    *reinterpret_cast<uint4*>(out + int64_t(row) * e.stride + chunk * 16) =
        *reinterpret_cast<const uint4*>(stage + row * stage_stride + chunk * 16);
  }
}

/// Writes the block's columns of the staged rows to the cells of a dense map. Lanes follow the rows: sites that
/// follow each other often lie side by side in the map.
template <int N, int Threads>
__device__ __forceinline__ void store_dense(const EmissionView& e, const char* stage, int32_t stage_stride,
                                            const SitesView& sites, int32_t first_row, int32_t present,
                                            int32_t first_column) {
  static_assert(Threads % kTileRows == 0, "a thread keeps its row");
  const int32_t row = threadIdx.x % kTileRows;
  if (row >= present) return;
  const Site s = sites.sites[first_row + row];
  const int64_t cell = (int64_t(s.z) * sites.shape[1] + s.y) * sites.shape[2] + s.x;
  const int32_t columns = min(N, e.columns - first_column);
  int64_t at = (int64_t(s.batch) * e.columns + first_column) * e.cells + cell;
  for (int32_t column = threadIdx.x / kTileRows; column < columns; column += Threads / kTileRows) {
    const int64_t to = at + int64_t(column) * e.cells;
    if (e.form == Form::kHalf) {
      static_cast<uint16_t*>(e.out)[to] = reinterpret_cast<const uint16_t*>(stage + row * stage_stride)[column];
    } else {
      static_cast<uint32_t*>(e.out)[to] = reinterpret_cast<const uint32_t*>(stage + row * stage_stride)[column];
    }
  }
}

template <typename T, int N, int WarpsM, int WarpsN, int SplitK>
struct TensorShape {
  static constexpr int kWarps = WarpsM * WarpsN * SplitK;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kM = kTileRows / WarpsM / 16;  // fragments of a warp along the rows
  static constexpr int kN = N / WarpsN / 8;           // and along the columns
  static constexpr int kFinishM = kM / SplitK;        // of those, finished by each of the warps that share them
  static_assert(kM % SplitK == 0 && kN % 2 == 0, "fragments must divide evenly");
  static constexpr int kExchange = kWarps * (kM - kFinishM) * kN * 4 * 128;  // bytes
  __host__ __device__ static constexpr int stage_stride(int element) { return N * element + 16; }
  __host__ __device__ static constexpr int stage_bytes(int element) { return kTileRows * stage_stride(element); }
};

template <typename T, int N, int WarpsM, int WarpsN, int SplitK, bool OneChunk>
__global__ __launch_bounds__(TensorShape<T, N, WarpsM, WarpsN, SplitK>::kThreads) void tensor_convolution(
    const __grid_constant__ TensorParams p) {
  using Shape = TensorShape<T, N, WarpsM, WarpsN, SplitK>;
  using Sum = typename Accumulator<T>::type;
  extern __shared__ __align__(128) char shared[];

  const MapView& map = p.map;
  const int32_t chunk_shift = OneChunk ? 0 : p.chunk_shift;
  const int32_t row_shift = chunk_shift + 4;
  const int32_t volume = map.geometry.volume;
  const int32_t group = map.list_capacity / kTileRows & ~1;  // offsets of a wide tile that are loaded together
  // Row 0 is zero: what missing neighbours read. The rest doubles as the exchange and the stage of the finish.
  const uint32_t rows = shared_address(shared);
  char* const scratch = shared + (1 << row_shift);
  const int32_t table_at = max(max((map.list_capacity + 1) << row_shift, (1 << row_shift) + Shape::kExchange),
                               (1 << row_shift) + Shape::stage_bytes(4));
  uint16_t* const table = reinterpret_cast<uint16_t*>(shared + (table_at + 15 & ~15));

  const int32_t thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int32_t warp_k = warp % SplitK, warp_n = warp / SplitK % WarpsN, warp_m = warp / SplitK / WarpsN;
  const int32_t row_in_fragment = lane & 15, half = lane >> 4;
  const int32_t count = *map.output.count, tiles = (count + kTileRows - 1) / kTileRows;
  const uint4* const weights = p.weights +
                               int64_t(blockIdx.y) * p.passes * p.steps * (N / 16) * 32 +
                               warp_n * (N / WarpsN / 16) * 32 + lane;

  for (int32_t i = thread; i < 1 << chunk_shift; i += Shape::kThreads)
    reinterpret_cast<uint4*>(shared)[i] = make_uint4(0, 0, 0, 0);
  // A last offset that does not exist completes the last step of 16-byte rows.
  for (int32_t i = thread; i < kTileRows; i += Shape::kThreads) table[volume * kTileRows + i] = 0;

  Lost lost;
  for (int32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    Sum sums[Shape::kM][Shape::kN][4] = {};
    const int32_t length = map.list_length[tile];
    const bool wide = length < 0;

    for (int32_t pass = 0; pass < p.passes; ++pass) {
      const char* const x = p.x + (pass << 7);
      for (int32_t first = 0; first < volume; first += wide ? group : volume) {
        const int32_t last = wide ? min(first + group, volume) : volume;
        __syncthreads();  // nobody reads rows, table or stage any more
        if (!wide) {
          const int32_t* const list = map.list + int64_t(tile) * map.list_capacity;
          for (int32_t i = thread; i < length << chunk_shift; i += Shape::kThreads) {
            const int32_t entry = i >> chunk_shift, chunk = i & ((1 << chunk_shift) - 1);
            const uint32_t row = uint32_t(entry) + 1;
            copy_async(rows + (row << row_shift) + (swizzled(row, chunk, chunk_shift) << 4),
                       x + int64_t(list[entry]) * p.x_stride + chunk * 16);
          }
          if (pass == 0) {
            const char* const from =
                reinterpret_cast<const char*>(map.local + int64_t(tile) * volume * kTileRows);
            for (int32_t i = thread; i < volume * (kTileRows * 2 / 16); i += Shape::kThreads)
              copy_async(shared_address(table) + i * 16, from + i * 16);
          }
        } else {
          for (int32_t i = thread; i < (last - first) * kTileRows; i += Shape::kThreads) {
            const int32_t out = tile * kTileRows + i % kTileRows;
            const int32_t source =
                out < count ? find_neighbour(map, map.output.sites[out], first + i / kTileRows) : -1;
            const uint32_t row = uint32_t(i) + 1;
            table[i] = source < 0 ? uint16_t(0) : uint16_t(row);
            if (source < 0) continue;
            for (int32_t chunk = 0; chunk < 1 << chunk_shift; ++chunk)
              copy_async(rows + (row << row_shift) + (swizzled(row, chunk, chunk_shift) << 4),
                         x + int64_t(source) * p.x_stride + chunk * 16);
          }
          if (OneChunk && (last - first) % 2) {
            for (int32_t i = thread; i < kTileRows; i += Shape::kThreads)
              table[(last - first) * kTileRows + i] = 0;
          }
        }
        wait_copies();
        __syncthreads();

        // One step reads 32 bytes of every row: two offsets' rows of 16 bytes, or two chunks of one offset's.
        const int32_t per_offset = OneChunk ? 1 : 1 << (chunk_shift - 1);
        const int32_t first_unit = OneChunk ? first / 2 : first, last_unit = OneChunk ? (last + 1) / 2 : last;
        const uint4* const w = weights + int64_t(pass) * p.steps * (N / 16) * 32;
        constexpr int kQuads = Shape::kN / 2;
        uint4 next[kQuads];
        int32_t unit = first_unit + warp_k;
        if (unit < last_unit) {
#pragma unroll
          for (int n = 0; n < kQuads; ++n) next[n] = __ldg(w + (uint32_t(unit * per_offset) * (N / 16) + n) * 32);
        }
        for (; unit < last_unit; unit += SplitK) {
          uint32_t address[Shape::kM], turn[Shape::kM];
#pragma unroll
          for (int m = 0; m < Shape::kM; ++m) {
            const int32_t slot = (OneChunk ? 2 * unit - first + half : unit - first) * kTileRows +
                                 (warp_m * Shape::kM + m) * 16 + row_in_fragment;
            const uint32_t row = table[slot];
            address[m] = rows + (row << row_shift);
            turn[m] = OneChunk ? 0 : swizzled(row, 0, chunk_shift);
          }
          for (int32_t step = 0; step < per_offset; ++step) {
            uint4 b[kQuads];
#pragma unroll
            for (int n = 0; n < kQuads; ++n) b[n] = next[n];
            const int32_t following = step + 1 < per_offset ? unit * per_offset + step + 1 : (unit + SplitK) * per_offset;
            if (following < last_unit * per_offset) {
#pragma unroll
              for (int n = 0; n < kQuads; ++n) next[n] = __ldg(w + (uint32_t(following) * (N / 16) + n) * 32);
            }
            uint32_t a[Shape::kM][4];
#pragma unroll
            for (int m = 0; m < Shape::kM; ++m)
              load_fragment(a[m], OneChunk ? address[m] : address[m] + ((uint32_t(2 * step + half) ^ turn[m]) << 4));
#pragma unroll
            for (int n = 0; n < kQuads; ++n) {
#pragma unroll
              for (int m = 0; m < Shape::kM; ++m) {
                multiply(sums[m][2 * n], a[m], b[n].x, b[n].y, T{});
                multiply(sums[m][2 * n + 1], a[m], b[n].z, b[n].w, T{});
              }
            }
          }
        }
      }
    }

    if (SplitK > 1) {  // warps that share fragments hand the others' parts over, and each finishes its own
      __syncthreads();
      Sum* const exchange = reinterpret_cast<Sum*>(scratch);
      const auto slot = [&](int owner, int m, int n, int i) -> Sum& {
        // `m` counts the fragments that `owner`'s partners gave away
        return exchange[(((owner * (Shape::kM - Shape::kFinishM) + m) * Shape::kN + n) * 4 + i) * 32 + lane];
      };
#pragma unroll
      for (int m = 0; m < Shape::kM; ++m) {
        const int keeper = m / Shape::kFinishM;
        if (keeper == warp_k) continue;
        const int giver = warp_k < keeper ? warp_k : warp_k - 1;
        const int owner = (warp - warp_k) + keeper;
#pragma unroll
        for (int n = 0; n < Shape::kN; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) slot(owner, giver * Shape::kFinishM + m % Shape::kFinishM, n, i) = sums[m][n][i];
        }
      }
      __syncthreads();
#pragma unroll
      for (int m = 0; m < Shape::kM; ++m) {
        if (m / Shape::kFinishM != warp_k) continue;
#pragma unroll
        for (int giver = 0; giver < SplitK - 1; ++giver) {
#pragma unroll
          for (int n = 0; n < Shape::kN; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
              sums[m][n][i] += slot(warp, giver * Shape::kFinishM + m % Shape::kFinishM, n, i);
          }
        }
      }
    }

    const FinishView& f = p.finish;
    const int32_t first_column = blockIdx.y * N, first_row = tile * kTileRows;
    const int32_t present = min(count - first_row, kTileRows);
    // y in place of the sums
    float y[Shape::kFinishM][Shape::kN][4];
#pragma unroll
    for (int m = 0; m < Shape::kM; ++m) {
      if (SplitK > 1 && m / Shape::kFinishM != warp_k) continue;
#pragma unroll
      for (int n = 0; n < Shape::kN; ++n) {
        const int32_t column = first_column + (warp_n * Shape::kN + n) * 8 + (lane & 3) * 2;
        const float2 bias = *reinterpret_cast<const float2*>(f.bias + column);
        float2 scale = make_float2(0.0f, 0.0f);
        if (sizeof(T) == 1) scale = *reinterpret_cast<const float2*>(f.scale + column);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int32_t row = (warp_m * Shape::kM + m) * 16 + (lane >> 2) + (i >> 1) * 8;
          const Sum sum = sums[m][n][i];
          const float b = i & 1 ? bias.y : bias.x;
          float v = sizeof(T) == 1 ? __fmaf_rn(float(sum), i & 1 ? scale.y : scale.x, b) : __fadd_rn(float(sum), b);
          if (f.relu) v = relu(v);
          if (row < present && column + (i & 1) < f.channels) {
            if (f.through_half) v = through_half(v, lost.before_add);
            if (f.residual.kind != Operand::kNone)
              v = add_operands(f.residual, v, other_operand(f.residual, first_row + row, column + (i & 1)), false, lost);
          } else {
            v = 0.0f;
          }
          y[m % Shape::kFinishM][n][i] = v;
        }
      }
    }
    int32_t stored[Shape::kFinishM][Shape::kN];
#pragma unroll
    for (int m = 0; m < Shape::kFinishM; ++m)
#pragma unroll
      for (int n = 0; n < Shape::kN; ++n) stored[m][n] = 0;

    for (int32_t which = 0; which < f.emission_count; ++which) {
      const EmissionView& e = f.emissions[which];
      const int32_t element = form_size(e.form), stride = Shape::stage_stride(element);
      __syncthreads();
#pragma unroll
      for (int m = 0; m < Shape::kFinishM; ++m) {
#pragma unroll
        for (int n = 0; n < Shape::kN; ++n) {
          int32_t once = 0;
          const int32_t whole_m = SplitK > 1 ? warp_k * Shape::kFinishM + m : m;
          const int32_t column = (warp_n * Shape::kN + n) * 8 + (lane & 3) * 2;
#pragma unroll
          for (int pair = 0; pair < 2; ++pair) {
            const int32_t row = (warp_m * Shape::kM + whole_m) * 16 + (lane >> 2) + pair * 8;
            const float v0 = emitted(e, y[m][n][pair * 2], once), v1 = emitted(e, y[m][n][pair * 2 + 1], once);
            char* const to = scratch + row * stride + column * element;
            if (e.form == Form::kInt8) {
              *reinterpret_cast<char2*>(to) = make_char2(int8_t(int32_t(v0)), int8_t(int32_t(v1)));
            } else if (e.form == Form::kHalf) {
              *reinterpret_cast<__half2*>(to) = __halves2half2(__float2half_rn(v0), __float2half_rn(v1));
            } else {
              *reinterpret_cast<float2*>(to) = make_float2(v0, v1);
            }
          }
          stored[m][n] = max(stored[m][n], once);
        }
      }
      __syncthreads();
      if (e.dense) {
        store_dense<N, Shape::kThreads>(e, scratch, stride, map.output, first_row, present, first_column);
      } else {
        store_rows<N, Shape::kThreads>(e, scratch, stride, first_row, present, first_column);
      }
    }
#pragma unroll
    for (int m = 0; m < Shape::kFinishM; ++m)
#pragma unroll
      for (int n = 0; n < Shape::kN; ++n) lost.stored += stored[m][n];
  }
  report_lost(p.finish, lost);
}

}  // namespace scn::cuda
