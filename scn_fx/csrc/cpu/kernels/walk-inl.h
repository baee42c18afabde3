// SPDX-License-Identifier: Apache-2.0
// The loops around a register-blocked kernel: offsets of a tile, blocks of output channels, rows that have a
// neighbour.
#pragma once

#include "cpu/kernels/row_blocks-inl.h"

namespace scn {
namespace {

/// Block has the element types X (features), W (weights), A (sums), kRows, kOutputs (a multiple of
/// kOutputBlock) and
///   template <int R> static void run(const GatherGemm&, int32_t offset, int32_t n, const X* const* x,
///                                    const W* weight, A* const* sums)
/// which adds R rows' products at one offset to outputs [n, n + kOutputs). This adds those to outputs
/// [begin, end); a function of its own, so that the rows' addresses stay in registers.
template <typename Block>
struct Outputs {
  template <int R>
  [[gnu::noinline]] static void run(const GatherGemm& g, int32_t k, int32_t begin, int32_t end,
                                    const typename Block::X* const* source, typename Block::A* const* sums) {
    using W = typename Block::W;
    const typename Block::X* x[R];
    typename Block::A* out[R];
    for (int r = 0; r < R; ++r) {
      x[r] = source[r];
      out[r] = sums[r];
    }
    const W* weight = static_cast<const W*>(g.weight) + weight_at(g, k, begin);
    const int64_t step = weight_at(g, 0, Block::kOutputs);
    for (int32_t n = begin; n < end; n += Block::kOutputs, weight += step) {
      Block::template run<R>(g, k, n, x, weight, out);
      for (int r = 0; r < R; ++r) out[r] += Block::kOutputs;
    }
  }
};

template <typename Block, typename Rows>
inline void walk_rows(const GatherGemm& g, const TilePairs& tile, const Rows& rows, void* sums,
                      int32_t n_begin, int32_t n_end) {
  using X = typename Block::X;
  using A = typename Block::A;
  constexpr int kRows = Block::kRows;
  const int32_t slab = slab_outputs<Block, Rows>(g, n_end - n_begin);
  for (int32_t k = 0; k < g.map.offsets; ++k) {
    const int32_t count = tile.counts[k];
    const Pair* pairs = tile.pairs + k * tile.room;
    for (int32_t begin = n_begin; begin < n_end; begin += slab) {
      const int32_t end = begin + slab < n_end ? begin + slab : n_end;
      for (int32_t i = 0; i < count; i += kRows) {
        const int32_t take = count - i < kRows ? count - i : kRows;
        const X* source[kRows];
        A* out[kRows];
        for (int32_t r = 0; r < take; ++r) {
          source[r] = rows.get(pairs[i + r].input, r);
          out[r] = static_cast<A*>(sums) + int64_t(pairs[i + r].row) * g.out_channels + begin;
        }
        ByRows<Outputs<Block>, kRows>::call(take, g, k, begin, end, source, out);
      }
    }
  }
}

template <typename Block>
inline void walk(const GatherGemm& g, const TilePairs& tile, void* sums, int32_t n_begin, int32_t n_end) {
  using X = typename Block::X;
  walk_rows<Block>(g, tile, StoredRows<X>{static_cast<const X*>(g.x), g.x_stride}, sums, n_begin, n_end);
}

/// The same for blocks that compute in float32, from float16 rows. `tile_rows` are those of list_pairs.
template <typename Block>
inline void walk_half(const GatherGemm& g, const TilePairs& tile, int64_t tile_rows, void* scratch,
                      void* sums, int32_t n_begin, int32_t n_end) {
  walk_rows<Block>(g, tile, widened_rows(g, tile_rows, scratch), sums, n_begin, n_end);
}

}  // namespace
}  // namespace scn
