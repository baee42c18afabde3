// SPDX-License-Identifier: Apache-2.0
// The loops around a register-blocked kernel: offsets of a tile, blocks of output channels, rows that have a
// neighbour.
#include <utility>

#include "cpu/kernels/kernels-inl.h"

namespace scn {
namespace {

/// Calls block<1>, block<2>, … block<kMost> by number of rows.
template <typename Block, int kMost>
struct ByRows {
  template <typename... Args>
  static inline void call(int32_t rows, const Args&... args) {
    if (rows == kMost)
      Block::template run<kMost>(args...);
    else
      ByRows<Block, kMost - 1>::call(rows, args...);
  }
};
template <typename Block>
struct ByRows<Block, 0> {
  template <typename... Args>
  static inline void call(int32_t, const Args&...) {}
};

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

/// Rows of features as they are stored.
template <typename X>
struct StoredRows {
  static constexpr bool kWidened = false;
  const X* x;
  int64_t stride;
  const X* get(int32_t row, int32_t) const { return x + int64_t(row) * stride; }
};

/// Rows of float16 as float32, kAccRows of them at a time.
struct WidenedRows {
  static constexpr bool kWidened = true;
  const uint16_t* x;
  int64_t stride;
  int32_t channels;
  float* buffer;
  const float* get(int32_t row, int32_t place) const {
    const uint16_t* in = x + int64_t(row) * stride;
    float* const out = buffer + int64_t(place) * (channels + kHalfPadding);
    for (int32_t c = 0; c < channels; c += 16) store16(out + c, load_half(in + c));
    return out;
  }
};

template <typename Block, typename Rows>
inline void walk_rows(const GatherGemm& g, const TilePairs& tile, const Rows& rows, void* sums,
                      int32_t n_begin, int32_t n_end) {
  using X = typename Block::X;
  using W = typename Block::W;
  using A = typename Block::A;
  constexpr int kRows = Block::kRows;
  // Outputs whose weights at one offset stay in the first-level cache are computed row by row, so that rows
  // are looked up once; then the next such outputs. Widening rows again would cost more.
  constexpr int64_t kCached = 16384;
  const int64_t block_bytes = int64_t(g.in_channels) * Block::kOutputs * int64_t(sizeof(W));
  const int32_t slab = Rows::kWidened
                           ? n_end - n_begin
                           : (block_bytes < kCached ? int32_t(kCached / block_bytes) : 1) * Block::kOutputs;
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

/// The same for blocks that compute in float32, from float16 rows. `tile_rows` are those of list_pairs, whose
/// scratch has room behind the lists.
template <typename Block>
inline void walk_half(const GatherGemm& g, const TilePairs& tile, int64_t tile_rows, void* scratch,
                      void* sums, int32_t n_begin, int32_t n_end) {
  float* const buffer =
      reinterpret_cast<float*>(static_cast<char*>(scratch) + pair_list_bytes(tile_rows, g.map.offsets));
  const WidenedRows rows{static_cast<const uint16_t*>(g.x), g.x_stride, g.in_channels, buffer};
  walk_rows<Block>(g, tile, rows, sums, n_begin, n_end);
}

}  // namespace
}  // namespace scn
