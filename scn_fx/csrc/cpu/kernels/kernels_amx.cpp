// SPDX-License-Identifier: Apache-2.0
// AMX int8 tiles (Sapphire Rapids onwards). What tiles do not do comes from the AVX-512 table.
// __AMXINT8__: the same in older versions of Clang
#if defined(__AMX_INT8__) || defined(__AMXINT8__) || defined(SCN_FX_EMULATE_AMX)
#include <cstdint>
#include <cstring>

#include "cpu/kernels/amx_tiles.h"
#include "cpu/kernels/kernels.h"

namespace scn {
namespace {

#if defined(SCN_FX_EMULATE_AMX)
const Kernels& kOthers = kPortableKernels;
#else
const Kernels& kOthers = kAvx512VnniKernels;
#endif

// A tile multiplies 16 rows of 64 input bytes with 64 x 16 weights. Offset after offset, the inputs of an
// output row are one long row of `offsets * in_channels` bytes, zero where there is no neighbour, and a step
// is 64 bytes of it: half an offset of 128 channels, or two of 32. The sums of 32 rows x 32 outputs stay in
// four tiles over all steps. Products with zeros cost less than sums that leave the tiles: a tile product
// takes 16 cycles, the vector instructions for as many products 128.
constexpr int32_t kTileRows = 16, kStep = 64, kPanelRows = 2 * kTileRows;

/// The scratch of a call: the rows of a panel, and which parts of them are in use.
struct Panel {
  int8_t* rows;        // [kPanelRows, stride]
  int64_t stride;      // bytes: a multiple of kStep
  int8_t* zeros;       // what an absent neighbour reads
  uintptr_t* sources;  // by offset: where one row's neighbour lies
  int32_t *offsets, *steps;
  uint8_t* in_use;  // by step
  int32_t offset_count, step_count;
};

template <typename T>
T* take(char** at, int64_t count) {
  T* taken = reinterpret_cast<T*>(*at);
  *at += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
  return taken;
}

Panel lay_out(const GatherGemm& g, void* scratch) {
  const int64_t depth = int64_t(g.map.offsets) * g.in_channels;
  char* at = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(scratch) + 63) / 64 * 64);
  Panel p{};
  p.stride = (depth + kStep - 1) / kStep * kStep;
  p.rows = take<int8_t>(&at, kPanelRows * p.stride);
  p.zeros = take<int8_t>(&at, g.in_channels);
  p.sources = take<uintptr_t>(&at, g.map.offsets + 15);
  p.offsets = take<int32_t>(&at, g.map.offsets);
  p.steps = take<int32_t>(&at, p.stride / kStep);
  p.in_use = take<uint8_t>(&at, p.stride / kStep);
  std::memset(p.zeros, 0, size_t(g.in_channels));
  // The last step may end beyond the last offset; weights are there (of the next outputs, or the padding).
  for (int32_t r = 0; r < kPanelRows; ++r) {
    std::memset(p.rows + r * p.stride + depth, 0, size_t(p.stride - depth));
  }
  return p;
}

/// Lists the steps in which any row of [begin, end) has a neighbour, and the offsets these steps cover.
inline void list_steps(const GatherGemm& g, int64_t begin, int64_t end, Panel* p) {
  const MapView& map = g.map;
  const int32_t channels = g.in_channels;
  std::memset(p->in_use, 0, size_t(p->stride / kStep));
  p->offset_count = p->step_count = 0;
  for (int32_t w = 0; w < map.mask_words; ++w) {
    uint64_t any = 0;
    for (int64_t row = begin; row < end; ++row) any |= map.masks[row * map.mask_words + w];
    for (; any; any &= any - 1) {
      const int32_t k = w * 64 + int32_t(__builtin_ctzll(any));
      for (int32_t s = k * channels / kStep; s * kStep < (k + 1) * channels; ++s) {
        if (!p->in_use[s]) p->steps[p->step_count++] = s;
        p->in_use[s] = 1;
      }
    }
  }
  for (int32_t k = 0; k < map.offsets; ++k) {
    // an offset without neighbours shares its first and last step at most
    if (p->in_use[k * channels / kStep] || p->in_use[((k + 1) * channels - 1) / kStep]) {
      p->offsets[p->offset_count++] = k;
    }
  }
}

/// Where the inputs of one output row lie, by offset: those of absent neighbours at `zeros`. Addresses as
/// numbers, eight at once: which neighbours exist cannot be predicted, so no branch may ask, and GCC makes
/// branches of plain C++ here.
inline void find_sources(const GatherGemm& g, int64_t row, uintptr_t zeros, uintptr_t* sources) {
  const MapView& map = g.map;
  const uintptr_t x = reinterpret_cast<uintptr_t>(g.x);
  const int32_t* input = map.inputs + map.first[row];
  for (int32_t begin = 0; begin < map.offsets; begin += 8) {  // `sources` has room for whole eights
    const uint32_t present = uint32_t(map.masks[row * map.mask_words + begin / 64] >> (begin % 64)) & 0xffu;
#if defined(__AVX512F__)
    const __mmask8 there = __mmask8(present);
    // up to 8 entries beyond the row's last may be read
    const __m256i listed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(input));
    const __m512i rows = _mm512_maskz_cvtepi32_epi64(there, _mm256_maskz_expand_epi32(there, listed));
    const __m512i bytes = _mm512_maskz_mul_epi32(there, rows, _mm512_set1_epi64(g.x_stride));
    const __m512i first = _mm512_set1_epi64(int64_t(x)), absent = _mm512_set1_epi64(int64_t(zeros));
    _mm512_storeu_si512(sources + begin, _mm512_mask_add_epi64(absent, there, first, bytes));
    input += __builtin_popcount(present);
#else
    for (int32_t i = 0; i < 8; ++i) {
      sources[begin + i] = present >> i & 1 ? x + uintptr_t(int64_t(*input++) * g.x_stride) : zeros;
    }
#endif
  }
}

/// Copies the inputs of `rows` output rows from `begin` on into the panel; rows from `end` on repeat the
/// last. kBytes is in_channels, or 0 for any multiple of 16.
template <int kBytes>
void gather(const GatherGemm& g, int64_t begin, int64_t end, int32_t rows, const Panel& p) {
  const int32_t channels = kBytes ? kBytes : g.in_channels, count = p.offset_count;
  constexpr int32_t kPiece = kBytes == 0 ? 16 : kBytes < kStep ? kBytes : kStep;
  const uintptr_t zeros = reinterpret_cast<uintptr_t>(p.zeros);
  const int32_t* offsets = p.offsets;
  uintptr_t* sources = p.sources;
  for (int32_t r = 0; r < rows; ++r) {
    find_sources(g, begin + r < end ? begin + r : end - 1, zeros, sources);
    int8_t* out = p.rows + r * p.stride;
    for (int32_t i = 0; i < count; ++i) {
      const int64_t k = offsets[i];
      const int8_t* source = reinterpret_cast<const int8_t*>(sources[k]);
      for (int32_t c = 0; c < channels; c += kPiece) std::memcpy(out + k * channels + c, source + c, kPiece);
    }
  }
}

inline void gather_any(const GatherGemm& g, int64_t begin, int64_t end, int32_t rows, const Panel& p) {
  switch (g.in_channels) {
    case 32:
      return gather<32>(g, begin, end, rows, p);
    case 64:
      return gather<64>(g, begin, end, rows, p);
    case 128:
      return gather<128>(g, begin, end, rows, p);
    default:
      return gather<0>(g, begin, end, rows, p);
  }
}

/// Sums of 16 * M rows x 16 * N outputs from `weight` (N blocks, `block` bytes apart).
template <int M, int N>
inline void products(const Panel& p, const int8_t* weight, int64_t block, int32_t* acc, int64_t acc_stride) {
  SCN_TILE_ZERO(0);
  if constexpr (N == 2) SCN_TILE_ZERO(1);
  if constexpr (M == 2) SCN_TILE_ZERO(2);
  if constexpr (M == 2 && N == 2) SCN_TILE_ZERO(3);
  const int8_t* lower = p.rows + kTileRows * p.stride;
#if defined(__clang__)
#pragma clang loop unroll(disable)  // two steps at once take more addresses than there are registers
#endif
  for (int32_t i = 0; i < p.step_count; ++i) {
    const int64_t column = int64_t(p.steps[i]) * kStep;
    const int8_t* w = weight + column * kOutputBlock;
    SCN_TILE_LOAD(4, p.rows + column, p.stride);
    SCN_TILE_LOAD(6, w, kStep);
    SCN_TILE_DOT(0, 4, 6);
    if constexpr (N == 2) {
      SCN_TILE_LOAD(7, w + block, kStep);
      SCN_TILE_DOT(1, 4, 7);
    }
    if constexpr (M == 2) {
      SCN_TILE_LOAD(5, lower + column, p.stride);
      SCN_TILE_DOT(2, 5, 6);
      if constexpr (N == 2) SCN_TILE_DOT(3, 5, 7);
    }
  }
  const int64_t bytes = acc_stride * int64_t(sizeof(int32_t));
  int32_t* acc_lower = acc + kTileRows * acc_stride;
  SCN_TILE_STORE(0, acc, bytes);
  if constexpr (N == 2) SCN_TILE_STORE(1, acc + kOutputBlock, bytes);
  if constexpr (M == 2) SCN_TILE_STORE(2, acc_lower, bytes);
  if constexpr (M == 2 && N == 2) SCN_TILE_STORE(3, acc_lower + kOutputBlock, bytes);
}

template <int M>
inline void all_outputs(const GatherGemm& g, const Panel& p, int32_t* acc) {
  const int64_t block = int64_t(g.map.offsets) * g.in_channels * kOutputBlock;
  const int8_t* weight = static_cast<const int8_t*>(g.weight);
  int32_t n = 0;
  for (; n + 2 * kOutputBlock <= g.out_channels; n += 2 * kOutputBlock, weight += 2 * block) {
    products<M, 2>(p, weight, block, acc + n, g.out_channels);
  }
  if (n < g.out_channels) products<M, 1>(p, weight, block, acc + n, g.out_channels);
}

void gemm_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* acc, void* scratch) {
  Panel p = lay_out(g, scratch);
  const TileScope tiles;
  for (int64_t row = begin; row < end; row += kPanelRows, acc += int64_t(kPanelRows) * g.out_channels) {
    const int64_t last = end - row < kPanelRows ? end : row + kPanelRows;
    const int32_t rows = last - row <= kTileRows ? kTileRows : kPanelRows;
    list_steps(g, row, last, &p);
    gather_any(g, row, last, rows, p);
    SCN_MEMORY_BARRIER();
    rows == kTileRows ? all_outputs<1>(g, p, acc) : all_outputs<2>(g, p, acc);
  }
}

/// Products of tiles that stay where they are: the share of this that a layer reaches is measured against it.
int64_t int8_loop(int64_t rounds) {
  const TileScope tiles;
  SCN_TILE_ZERO(0);
  SCN_TILE_ZERO(1);
  SCN_TILE_ZERO(2);
  SCN_TILE_ZERO(3);
  SCN_TILE_ZERO(4);
  SCN_TILE_ZERO(5);
  for (int64_t i = 0; i < rounds; ++i) {
    SCN_TILE_DOT(0, 4, 5);
    SCN_TILE_DOT(1, 4, 5);
    SCN_TILE_DOT(2, 4, 5);
    SCN_TILE_DOT(3, 4, 5);
  }
  return rounds * 4 * kTileRows * kOutputBlock * kStep * 2;
}

void gemm_float(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void* scratch, bool fused) {
  kOthers.blocks_float(g, begin, end, acc, scratch, fused);
}
void add_outer(const float* rows, int32_t outs, const float* columns, int32_t width, int64_t pairs,
               float* sums) {
  kOthers.add_outer(rows, outs, columns, width, pairs, sums);
}
Overflow finish(const Finish& f, int64_t begin, int64_t end) { return kOthers.finish(f, begin, end); }
void convert_from_half(const uint16_t* in, float* out, int64_t count) {
  kOthers.half_to_float(in, out, count);
}
int64_t convert_to_half(const float* in, uint16_t* out, int64_t count) {
  return kOthers.float_to_half(in, out, count);
}
int64_t float_loop(int64_t rounds) { return kOthers.float_loop(rounds); }

}  // namespace

const Kernels kAmxKernels = {"amx",  gemm_int8,         nullptr,         gemm_float, nullptr,  add_outer,
                             finish, convert_from_half, convert_to_half, float_loop, int8_loop};

}  // namespace scn
#endif
