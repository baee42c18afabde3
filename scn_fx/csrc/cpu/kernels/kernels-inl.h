// SPDX-License-Identifier: Apache-2.0
// From sums to stored results, sixteen channels at a time. Each instruction set's file includes its vec16
// file and then this one, and compiles both with its own flags; everything has internal linkage, so the
// linker cannot mix the copies.
#pragma once

#include <cstring>

#include "core/activations-inl.h"
#include "cpu/kernels/kernels.h"

namespace scn {
namespace {

/// Columns [n, n + count) of a row; rows of the caller need not be padded to sixteen.
inline Vec16 load_columns(const float* row, int32_t n, int32_t count) {
  return count >= 16 ? load16(row + n) : load_first(row + n, count);
}

inline Vec16 load_half_columns(const uint16_t* row, int32_t n, int32_t count) {
  if (count >= 16) return load_half(row + n);
  uint16_t tail[16] = {};
  std::memcpy(tail, row + n, size_t(count) * sizeof(uint16_t));
  return load_half(tail);
}

/// Whether a finish has nothing but what most have: activations that are a ReLU or none, no affine map, no
/// product. The rest may call functions, around which a compiler keeps values in memory: it has a loop of its
/// own.
inline bool is_usual(const Finish& f) {
  const auto usual = [](const Activation& a) {
    return a.kind == ActivationKind::kNone || a.kind == ActivationKind::kRelu;
  };
  bool all = usual(f.activation) && !f.residual.product && (f.int_sums || !f.scale);
  for (int32_t i = 0; i < f.store_count; ++i)
    all = all && usual(f.stores[i].activation) && !f.stores[i].scale;
  return all;
}

template <bool kUsual>
inline Vec16 activated(const Activation& a, const Vec16& y) {
  if (kUsual) return a.kind == ActivationKind::kRelu ? relu(y) : y;
  return activate(a, y);
}

template <bool kUsual>
inline Vec16 source_columns(const Finish& f, int64_t begin, int64_t row, int32_t n) {
  if (f.int_sums) {
    return fma(from_int32(f.int_sums + (row - begin) * f.stride + n), load16(f.scale + n),
               load16(f.bias + n));
  }
  if (f.float_sums) {
    const Vec16 sums = load_columns(f.float_sums + (row - begin) * f.stride, n, f.channels - n);
    if (!kUsual && f.scale) return add(mul(sums, load16(f.scale + n)), load16(f.bias + n));
    return f.bias ? add(sums, load16(f.bias + n)) : sums;
  }
  if (f.self_half) {
    const Vec16 self = load_half_columns(f.self_half + row * f.stride, n, f.channels - n);
    return !kUsual && f.scale ? add(mul(self, load16(f.scale + n)), load16(f.bias + n)) : self;
  }
  return from_int8(f.self_int8 + row * f.stride + n);
}

/// The Add: y = fma(q_a, s_a, q_b * s_b) for int8, a + b otherwise. The product: (q_a * q_b) * s, or a * b.
template <bool kUsual>
inline Vec16 add_columns(const Finish& f, int64_t row, int32_t n, Vec16 self, int64_t* lost) {
  const ResidualView& r = f.residual;
  if (r.type == ElementType::kInt8) {
    const Vec16 other = from_int8(static_cast<const int8_t*>(r.other) + row * r.stride + n);
    if (!kUsual && r.product) return mul(mul(self, other), splat16(r.scale));
    if (!f.self_int8) self = to_q(mul(self, splat16(r.scales.self_factor)));
    const Vec16 self_scale = splat16(r.scales.self_scale), other_scale = splat16(r.scales.other_scale);
    return r.self_is_second ? fma(other, other_scale, mul(self, self_scale))
                            : fma(self, self_scale, mul(other, other_scale));
  }
  if (r.rounds) self = through_half(self, lost);
  const int32_t count = f.channels - n;
  const Vec16 other =
      r.type == ElementType::kFloat16
          ? load_half_columns(static_cast<const uint16_t*>(r.other) + row * r.stride, n, count)
          : load_columns(static_cast<const float*>(r.other) + row * r.stride, n, count);
  return !kUsual && r.product ? mul(self, other) : add(self, other);
}

/// Stores columns [n, n + 16) of one row in one form, as far as the form has them.
template <bool kUsual>
inline int64_t store_columns(const StoreView& s, int64_t row, int32_t n, Vec16 y) {
  int64_t lost_first = 0, lost = 0;
  if (s.rounds_first) y = through_half(y, &lost_first);
  if (!kUsual && s.scale) y = add(mul(y, load16(s.scale + n)), load16(s.shift + n));
  y = activated<kUsual>(s.activation, y);
  const int32_t count = s.columns - n < 16 ? s.columns - n : 16;
  if (count <= 0) return 0;
  if (s.rounds && s.type != ElementType::kFloat16) y = through_half(y, &lost);
  const int64_t at = row * s.stride + n;
  if (s.type == ElementType::kInt8) {
    // int8 rows are always padded
    store_q(static_cast<int8_t*>(s.out) + at, to_q(mul(y, splat16(s.factor))));
  } else if (s.type == ElementType::kFloat16) {
    uint16_t* const out = static_cast<uint16_t*>(s.out) + at;
    if (count == 16) {
      store_half(out, y, &lost);
    } else {
      uint16_t tail[16];
      store_half(tail, y, &lost);
      std::memcpy(out, tail, size_t(count) * sizeof(uint16_t));
    }
  } else if (count == 16) {
    store16(static_cast<float*>(s.out) + at, y);
  } else {
    store_first(static_cast<float*>(s.out) + at, y, count);
  }
  return lost > lost_first ? lost : lost_first;
}

template <bool kUsual>
Overflow finish_rows_of(const Finish& f, int64_t begin, int64_t end) {
  Overflow lost{0, 0};
  for (int64_t row = begin; row < end; ++row) {
    for (int32_t n = 0; n < f.channels; n += 16) {
      Vec16 y = activated<kUsual>(f.activation, source_columns<kUsual>(f, begin, row, n));
      if (f.rounds) y = through_half(y, &lost.before_add);
      if (f.residual.other) y = add_columns<kUsual>(f, row, n, y, &lost.before_add);
      int64_t stored = 0;
      for (int32_t i = 0; i < f.store_count; ++i) {
        const int64_t once = store_columns<kUsual>(f.stores[i], row, n, y);
        stored = once > stored ? once : stored;
      }
      lost.stored += stored;
    }
  }
  return lost;
}

/// Whether a finish makes sums of a convolution into int8 in one form, with a ReLU at the end or none, and
/// adds nothing but int8: the layers in the middle of a network.
inline bool is_plain_int8(const Finish& f) {
  const ResidualView& r = f.residual;
  const bool sums = f.int_sums || (f.float_sums && f.bias && f.stride % 16 == 0);
  if (!sums || f.rounds || f.store_count != 1 || !is_usual(f)) return false;
  if (r.other && (r.type != ElementType::kInt8 || f.activation.kind != ActivationKind::kNone)) return false;
  const StoreView& s = f.stores[0];
  return s.type == ElementType::kInt8 && !s.rounds_first && !s.rounds && s.columns >= f.channels;
}

/// Such a finish, without a question for each sixteen columns.
template <bool kInt, bool kAdd, bool kRelu>
inline void finish_plain_int8(const Finish& f, int64_t begin, int64_t end) {
  const ResidualView& r = f.residual;
  const StoreView& s = f.stores[0];
  const Vec16 factor = splat16(s.factor), self_factor = splat16(r.scales.self_factor);
  const Vec16 self_scale = splat16(r.scales.self_scale), other_scale = splat16(r.scales.other_scale);
  const bool second = r.self_is_second;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = (row - begin) * f.stride;
    const int8_t* const others = kAdd ? static_cast<const int8_t*>(r.other) + row * r.stride : nullptr;
    int8_t* const out = static_cast<int8_t*>(s.out) + row * s.stride;
    for (int32_t n = 0; n < f.channels; n += 16) {
      Vec16 y = kInt ? fma(from_int32(f.int_sums + at + n), load16(f.scale + n), load16(f.bias + n))
                     : add(load16(f.float_sums + at + n), load16(f.bias + n));
      if (kAdd) {
        const Vec16 self = to_q(mul(y, self_factor)), other = from_int8(others + n);
        y = second ? fma(other, other_scale, mul(self, self_scale))
                   : fma(self, self_scale, mul(other, other_scale));
      }
      if (kRelu) y = relu(y);
      store_q(out + n, to_q(mul(y, factor)));
    }
  }
}

template <bool kInt, bool kAdd>
inline void finish_plain_int8(const Finish& f, int64_t begin, int64_t end) {
  const bool relu =
      f.activation.kind == ActivationKind::kRelu || f.stores[0].activation.kind == ActivationKind::kRelu;
  relu ? finish_plain_int8<kInt, kAdd, true>(f, begin, end)
       : finish_plain_int8<kInt, kAdd, false>(f, begin, end);
}

Overflow finish_rows(const Finish& f, int64_t begin, int64_t end) {
  if (is_plain_int8(f)) {
    if (f.int_sums) {
      f.residual.other ? finish_plain_int8<true, true>(f, begin, end)
                       : finish_plain_int8<true, false>(f, begin, end);
    } else {
      f.residual.other ? finish_plain_int8<false, true>(f, begin, end)
                       : finish_plain_int8<false, false>(f, begin, end);
    }
    return {0, 0};
  }
  return is_usual(f) ? finish_rows_of<true>(f, begin, end) : finish_rows_of<false>(f, begin, end);
}

/// See Kernels. `kFused`: the hardware has fused multiply-adds.
template <bool kFused>
void add_outer(const float* rows, int32_t outs, const float* columns, int32_t width, int64_t pairs,
               float* sums) {
  // Without fused multiply-adds a Vec16 takes four of the sixteen registers of SSE.
  constexpr int kRows = kFused ? 4 : 2;
  for (int32_t o = 0; o < outs; o += kRows) {
    for (int32_t c = 0; c < width; c += 16) {
      float* const to = sums + int64_t(o) * width + c;
      Vec16 acc[kRows];
      for (int j = 0; j < kRows; ++j) acc[j] = load16(to + int64_t(j) * width);
      for (int64_t p = 0; p < pairs; ++p) {
        const Vec16 x = load16(columns + p * width + c);
        const float* const g = rows + p * outs + o;
        for (int j = 0; j < kRows; ++j) {
          const Vec16 factor = splat16(g[j]);
          acc[j] = kFused ? fma(factor, x, acc[j]) : add(mul(factor, x), acc[j]);
        }
      }
      for (int j = 0; j < kRows; ++j) store16(to + int64_t(j) * width, acc[j]);
    }
  }
}

void convert_from_half(const uint16_t* in, float* out, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store16(out + i, load_half(in + i));
  for (; i < count; ++i) out[i] = half_to_float(in[i]);
}

int64_t convert_to_half(const float* in, uint16_t* out, int64_t count) {
  int64_t lost = 0, i = 0;
  for (; i + 16 <= count; i += 16) store_half(out + i, load16(in + i), &lost);
  for (; i < count; ++i) {
    out[i] = float_to_half(in[i]);
    lost += !(in[i] < kHalfOverflow && in[i] > -kHalfOverflow);
  }
  return lost;
}

/// Where the packed weights of one offset begin for the block of outputs at `n`.
inline int64_t weight_at(const GatherGemm& g, int32_t k, int32_t n) {
  return (int64_t(n) * g.map.offsets + int64_t(k) * kOutputBlock) * g.in_channels;
}

/// Quads of input channels in a 16-bit sum at one offset, for the block of outputs at `n`.
inline int32_t group_at(const GatherGemm& g, int32_t k, int32_t n) {
  return g.groups[n / kOutputBlock * g.map.offsets + k];
}

/// Where the shifts of its sums begin; null if there are none.
inline const int16_t* shifts_at(const GatherGemm& g, int32_t k, int32_t n) {
  constexpr int32_t kLanes = kOutputBlock * kInputQuad / 2;
  const int64_t groups = g.in_channels / (kInputQuad * kShiftedGroup);
  return g.shifts ? g.shifts + (int64_t(n / kOutputBlock) * g.map.offsets + k) * groups * kLanes : nullptr;
}

/// Calls visit(offset, input row) for the neighbours of one output row, offsets ascending. Up to 64 offsets
/// share one loop over the bits of a mask: its end is the one branch per row that cannot be predicted.
template <typename Visit>
[[gnu::always_inline]] inline void for_each_neighbour(const MapView& map, int64_t row, const Visit& visit) {
  const int32_t* input = map.inputs + map.first[row];
  for (int32_t w = 0; w < map.mask_words; ++w) {
    for (uint64_t bits = map.masks[row * map.mask_words + w]; bits; bits &= bits - 1) {
      visit(w * 64 + int32_t(__builtin_ctzll(bits)), *input++);
    }
  }
}

/// A row of a tile, counted from the tile's first, and the input row that it reads at some offset.
struct Pair {
  int32_t row, input;
};

/// The pairs of a tile, by offset.
struct TilePairs {
  const int32_t* counts;
  const Pair* pairs;
  int64_t room;  // pairs of offset k begin at k * room
};

inline TilePairs list_pairs(const MapView& map, int64_t begin, int64_t end, void* scratch) {
  Pair* pairs = static_cast<Pair*>(scratch);
  const int64_t room = list_room(end - begin);
  int32_t* counts = reinterpret_cast<int32_t*>(pairs + map.offsets * room);
  std::memset(counts, 0, size_t(map.offsets) * sizeof(int32_t));
  for (int64_t row = begin; row < end; ++row) {
    for_each_neighbour(map, row, [&](int32_t k, int32_t input) {
      pairs[k * room + counts[k]++] = {int32_t(row - begin), input};
    });
  }
  return {counts, pairs, room};
}

}  // namespace
}  // namespace scn
