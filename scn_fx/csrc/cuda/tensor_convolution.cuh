// SPDX-License-Identifier: Apache-2.0
// The tensor-core convolution. A block takes one tile of 64 output rows after another: it copies the distinct
// input rows of the tile to shared memory once, then every offset reads its rows there through ldmatrix,
// whose lanes may point anywhere. Weights come fragment by fragment through the first-level cache, which the
// blocks of a multiprocessor share.
#pragma once

#include "cuda/fragment_finish.cuh"
#include "cuda/lookup.cuh"
#include "cuda/mma.cuh"
#include "cuda/tensor_params.h"

namespace scn::cuda {

template <typename T, int N, int WarpsM, int WarpsN, int SplitK>
struct TensorShape {
  static constexpr int kWarps = WarpsM * WarpsN * SplitK;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kM = kTileRows / WarpsM / 16;  // fragments of a warp along the rows
  static constexpr int kN = N / WarpsN / 8;           // and along the columns
  static constexpr int kFinishM = kM / SplitK;  // of those, finished by each of the warps that share them
  static_assert(kM % SplitK == 0 && kN % 2 == 0, "fragments must divide evenly");
  static constexpr int kExchange = kWarps * (kM - kFinishM) * kN * 4 * 128;  // bytes
  static constexpr int kStage = stage_bytes(kN * 8 < 64 ? kN * 8 : 64, 4);   // of one warp, bytes
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
  const int32_t group =
      map.list_capacity / kTileRows & ~1;  // offsets of a wide tile that are loaded together
  // Row 0 is zero: what missing neighbours read. The rest doubles as the exchange and the stage of the
  // finish.
  const uint32_t rows = shared_address(shared);
  char* const scratch = shared + (1 << row_shift);
  const int32_t table_at = max((map.list_capacity + 1) << row_shift,
                               (1 << row_shift) + max(Shape::kExchange, Shape::kWarps * Shape::kStage));
  uint16_t* const table = reinterpret_cast<uint16_t*>(shared + (table_at + 15 & ~15));

  const int32_t thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int32_t warp_k = warp % SplitK, warp_n = warp / SplitK % WarpsN, warp_m = warp / SplitK / WarpsN;
  const int32_t row_in_fragment = lane & 15, half = lane >> 4;
  const int32_t count = *map.output.count, tiles = (count + kTileRows - 1) / kTileRows;
  const uint4* const weights = p.weights + int64_t(blockIdx.y) * p.passes * p.steps * (N / 16) * 32 +
                               warp_n * (N / WarpsN / 16) * 32 + lane;

  for (int32_t i = thread; i < 1 << chunk_shift; i += Shape::kThreads)
    reinterpret_cast<uint4*>(shared)[i] = make_uint4(0, 0, 0, 0);
  // A last offset that does not exist completes the last step of 16-byte rows.
  for (int32_t i = thread; i < kTileRows; i += Shape::kThreads) table[volume * kTileRows + i] = 0;

  Lost lost;
  bool waited = false;
  for (int32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    Sum sums[Shape::kM][Shape::kN][4] = {};
    const int32_t length = map.list_length[tile];
    const bool wide = length < 0;

    for (int32_t pass = 0; pass < p.passes; ++pass) {
      const char* const x = p.x + (pass << 7);
      for (int32_t first = 0; first < volume; first += wide ? group : volume) {
        const int32_t last = wide ? min(first + group, volume) : volume;
        __syncthreads();  // nobody reads rows, table or stage any more
        if (!wide && pass == 0) {
          const char* const from =
              reinterpret_cast<const char*>(map.local + int64_t(tile) * volume * kTileRows);
          for (int32_t i = thread; i < volume * (kTileRows * 2 / 16); i += Shape::kThreads)
            copy_async(shared_address(table) + i * 16, from + i * 16);
        }
        if (!waited) {  // maps are complete when the layer before starts; what it computes is, when it has
                        // ended
          wait_for_dependency();
          if (thread == 0) launch_dependents();
          waited = true;
        }
        if (!wide) {
          const int32_t* const list = map.list + int64_t(tile) * map.list_capacity;
          const int32_t chunk = thread & ((1 << chunk_shift) - 1), at_once = Shape::kThreads >> chunk_shift;
          constexpr int kAhead = 8;  // list entries of a thread that are loaded together
          for (int32_t begin = thread >> chunk_shift; begin < length; begin += kAhead * at_once) {
            int32_t entry[kAhead];
#pragma unroll
            for (int i = 0; i < kAhead; ++i) {
              const int32_t at = begin + i * at_once;
              entry[i] = at < length ? __ldg(list + at) : -1;
            }
#pragma unroll
            for (int i = 0; i < kAhead; ++i) {
              const uint32_t row = uint32_t(begin + i * at_once) + 1;
              if (entry[i] >= 0)
                copy_async(rows + (row << row_shift) + (swizzled(row, chunk, chunk_shift) << 4),
                           x + int64_t(entry[i]) * p.x_stride + chunk * 16);
            }
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
          for (int n = 0; n < kQuads; ++n)
            next[n] = __ldg(w + (uint32_t(unit * per_offset) * (N / 16) + n) * 32);
        }
        const auto rows_of = [&](uint32_t (&row)[Shape::kM], int32_t unit) {
#pragma unroll
          for (int m = 0; m < Shape::kM; ++m) {
            row[m] = table[(OneChunk ? 2 * unit - first + half : unit - first) * kTileRows +
                           (warp_m * Shape::kM + m) * 16 + row_in_fragment];
          }
        };
        uint32_t next_row[Shape::kM];
        if (unit < last_unit) rows_of(next_row, unit);
        for (; unit < last_unit; unit += SplitK) {
          uint32_t address[Shape::kM], turn[Shape::kM];
#pragma unroll
          for (int m = 0; m < Shape::kM; ++m) {
            address[m] = rows + (next_row[m] << row_shift);
            turn[m] = OneChunk ? 0 : swizzled(next_row[m], 0, chunk_shift);
          }
          if (unit + SplitK < last_unit) rows_of(next_row, unit + SplitK);
          for (int32_t step = 0; step < per_offset; ++step) {
            uint4 b[kQuads];
#pragma unroll
            for (int n = 0; n < kQuads; ++n) b[n] = next[n];
            const int32_t following =
                step + 1 < per_offset ? unit * per_offset + step + 1 : (unit + SplitK) * per_offset;
            if (following < last_unit * per_offset) {
#pragma unroll
              for (int n = 0; n < kQuads; ++n) next[n] = __ldg(w + (uint32_t(following) * (N / 16) + n) * 32);
            }
            uint32_t a[Shape::kM][4];
#pragma unroll
            for (int m = 0; m < Shape::kM; ++m)
              load_fragment(
                  a[m], OneChunk ? address[m] : address[m] + ((uint32_t(2 * step + half) ^ turn[m]) << 4));
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
          for (int i = 0; i < 4; ++i)
            slot(owner, giver * Shape::kFinishM + m % Shape::kFinishM, n, i) = sums[m][n][i];
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

    __syncthreads();  // the stages lie where rows and sums lay
    char* const stage = scratch + warp * Shape::kStage;
    const int32_t first_column = blockIdx.y * N + warp_n * Shape::kN * 8;
#pragma unroll
    for (int m = 0; m < Shape::kM; ++m) {
      if (SplitK > 1 && m / Shape::kFinishM != warp_k) continue;
      const int32_t row = tile * kTileRows + (warp_m * Shape::kM + m) * 16;
      finish_fragments<T, 0>(p.finish, sums[m], stage, map.output, row, count, first_column,
                             StagedResidual{nullptr, 0}, lost);
    }
  }
  report_lost(p.finish, lost);
}

}  // namespace scn::cuda
