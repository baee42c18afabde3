// SPDX-License-Identifier: Apache-2.0
// The loops around a register-blocked kernel that takes up to three offsets at once. Offsets that follow each
// other are mostly neighbours along x, and a site that has one of them mostly has others: sums are then
// loaded and stored once for two or three products instead of each time.
#pragma once

#include "cpu/kernels/row_blocks-inl.h"

namespace scn {
namespace {

constexpr int32_t kPatterns = 1 << kRun;  // which offsets of a run a row has

/// A row of a tile, counted from the tile's first, and where its inputs at the offsets of a run begin in the
/// map, counted from those of the tile.
struct RunOfRow {
  int32_t row, first;
};

/// The rows of a tile by run and pattern.
struct TileRuns {
  const int32_t* counts;
  const RunOfRow* rows;
  int64_t room;           // rows of list i begin at i * room
  const int32_t* inputs;  // of the tile
};

inline int32_t runs_of(const MapView& map) { return (map.offsets + kRun - 1) / kRun; }

/// The bits of a run in a row's mask.
inline uint32_t pattern_at(const MapView& map, const uint64_t* words, int32_t run) {
  const int32_t bit = run * kRun, word = bit / 64, shift = bit % 64;
  uint64_t bits = words[word] >> shift;
  // a run that begins with a word's last bits goes on in the next, if there is one
  if (shift > 64 - kRun && word + 1 < map.mask_words) bits |= words[word + 1] << (64 - shift);
  return uint32_t(bits) & (kPatterns - 1);
}

/// Rows without any offset of a run are listed too, and never looked at: no branch could be predicted.
inline TileRuns list_runs(const MapView& map, int64_t begin, int64_t end, void* scratch) {
  RunOfRow* const rows = static_cast<RunOfRow*>(scratch);
  const int64_t room = list_room(end - begin), first = map.first[begin];
  const int32_t runs = runs_of(map);
  int32_t* const counts = reinterpret_cast<int32_t*>(rows + runs * kPatterns * room);
  std::memset(counts, 0, size_t(runs) * kPatterns * sizeof(int32_t));
  for (int64_t row = begin; row < end; ++row) {
    const uint64_t* const words = map.masks + row * map.mask_words;
    int32_t at = int32_t(map.first[row] - first);
    // they are read list by list, in no order that hardware could guess
    const int32_t* const inputs = map.inputs + map.first[row];
    __builtin_prefetch(inputs);
    __builtin_prefetch(inputs + 16);
    uint64_t mask = words[0];
    RunOfRow* lists = rows;
    for (int32_t run = 0; run < runs; ++run, lists += kPatterns * room) {
      const uint32_t pattern = map.mask_words == 1 ? uint32_t(mask) & 7 : pattern_at(map, words, run);
      mask >>= kRun;
      int32_t& count = counts[run * kPatterns + pattern];
      lists[pattern * room + count] = {int32_t(row - begin), at};
      ++count;
      at += __builtin_popcount(pattern);
    }
  }
  return {counts, rows, room, map.inputs + first};
}

/// Which of a run's offsets a pattern has, ascending.
struct Pattern {
  int32_t offsets[kRun], count;
};

inline Pattern pattern_of(int32_t run, int32_t bits) {
  Pattern p{{}, 0};
  for (int32_t i = 0; i < kRun; ++i) {
    if (bits >> i & 1) p.offsets[p.count++] = run * kRun + i;
  }
  return p;
}

/// Block has the element types X (features), W (weights), A (sums), kRows, kOutputs (a multiple of
/// kOutputBlock) and
///   template <int R> static void run(const GatherGemm&, const Pattern&, int32_t n, const X* const* x,
///                                    const W* weight, A* const* sums)
/// which adds the products of R rows at the pattern's offsets to outputs [n, n + kOutputs). x[i * kRows + r]
/// is the input of row r at the pattern's offset i, `weight` that of these outputs at offset 0. This adds
/// those to outputs [begin, end); a function of its own, so that the rows' addresses stay in registers.
template <typename Block>
struct RunOutputs {
  template <int R>
  [[gnu::noinline]] static void run(const GatherGemm& g, const Pattern& pattern, int32_t begin, int32_t end,
                                    const typename Block::X* const* source, typename Block::A* const* sums) {
    using W = typename Block::W;
    typename Block::A* out[R];
    for (int r = 0; r < R; ++r) out[r] = sums[r];
    const W* weight = static_cast<const W*>(g.weight) + weight_at(g, 0, begin);
    const int64_t step = weight_at(g, 0, Block::kOutputs);
    for (int32_t n = begin; n < end; n += Block::kOutputs, weight += step) {
      Block::template run<R>(g, pattern, n, source, weight, out);
      for (int r = 0; r < R; ++r) out[r] += Block::kOutputs;
    }
  }
};

template <typename Block, typename Rows>
inline void walk_runs(const GatherGemm& g, const TileRuns& tile, const Rows& rows, void* sums,
                      int32_t n_begin, int32_t n_end) {
  using X = typename Block::X;
  using A = typename Block::A;
  constexpr int kRows = Block::kRows;
  const int32_t slab = slab_outputs<Block, Rows>(g, n_end - n_begin);
  for (int32_t run = 0; run < runs_of(g.map); ++run) {
    for (int32_t bits = 1; bits < kPatterns; ++bits) {
      const int32_t list = run * kPatterns + bits, count = tile.counts[list];
      if (count == 0) continue;
      const RunOfRow* const listed = tile.rows + list * tile.room;
      const Pattern pattern = pattern_of(run, bits);
      for (int32_t begin = n_begin; begin < n_end; begin += slab) {
        const int32_t end = begin + slab < n_end ? begin + slab : n_end;
        for (int32_t i = 0; i < count; i += kRows) {
          const int32_t take = count - i < kRows ? count - i : kRows;
          const X* source[kRun * kRows];
          A* out[kRows];
          for (int32_t r = 0; r < take; ++r) {
            const RunOfRow& at = listed[i + r];
            out[r] = static_cast<A*>(sums) + int64_t(at.row) * g.out_channels + begin;
            for (int32_t o = 0; o < pattern.count; ++o) {
              const int32_t place = o * kRows + r;
              source[place] = rows.get(tile.inputs[at.first + o], place);
            }
          }
          // the next rows, which no hardware can guess
          const int32_t next_end = i + 2 * kRows < count ? i + 2 * kRows : count;
          for (int32_t next = i + kRows; next < next_end; ++next) {
            const int32_t* const inputs = tile.inputs + listed[next].first;
            for (int32_t o = 0; o < pattern.count; ++o) rows.prefetch(inputs[o], g.in_channels);
          }
          ByRows<RunOutputs<Block>, kRows>::call(take, g, pattern, begin, end, source, out);
        }
      }
    }
  }
}

}  // namespace
}  // namespace scn
