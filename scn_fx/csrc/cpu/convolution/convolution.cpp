// SPDX-License-Identifier: Apache-2.0
#include "cpu/convolution/convolution.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/geometry.h"
#include "core/numerics.h"
#include "cpu/convolution/overflow_count.h"
#include "scn_fx/half.h"

namespace scn {
namespace {

// A tile's sums should stay in the second-level cache (256 rows x 128 channels x 4 bytes = 128 KiB) while
// each offset's weights are read once for all rows of the tile.
constexpr int64_t kMostTileRows = 256;
constexpr int64_t kFinishedRows = 1024;  // without products: of a chunk

int32_t round_up(int32_t n, int32_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Rows of a tile: fewer for kernels of so many offsets that their lists would leave the second-level cache.
int64_t tile_rows(int32_t offsets) {
  constexpr int64_t kMostListBytes = 1 << 20, kLeastTileRows = 16;
  int64_t rows = kMostTileRows;
  while (rows > kLeastTileRows && tile_list_bytes(rows, offsets) > kMostListBytes) rows /= 2;
  return rows;
}

/// Sums of a tile, in whole cache lines.
int64_t sum_bytes(int64_t rows, int32_t out_padded) {
  return (rows * out_padded * int64_t(sizeof(int32_t)) + 63) / 64 * 64;
}

}  // namespace

PreparedWeights sized_weights(const LayerWeights& s) {
  check_ranges(s);
  PreparedWeights w;
  w.precision = s.precision;
  w.in_channels = s.in_channels;
  w.out_channels = s.out_channels;
  w.offsets = s.offsets;
  w.out_padded = round_up(s.out_channels, kOutputBlock);
  const bool int8 = s.precision == ElementType::kInt8;
  w.in_padded = int8 ? round_up(s.in_channels, kInputQuad) : s.in_channels;
  w.bias.assign(size_t(w.out_padded), 0.0f);
  if (!int8) {
    w.floats.resize(size_t(packed_float_count(s.out_channels, s.offsets, s.in_channels)));
    return w;
  }
  w.scale.assign(size_t(w.out_padded), 0.0f);
  for (int32_t n = 0; n < s.out_channels; ++n)
    w.scale[size_t(n)] = product_scale(s.input_amax, s.weight_amax[n]);
  w.int8.resize(size_t(packed_int8_bytes(s.out_channels, s.offsets, s.in_channels)));
  w.groups.resize((Size(w.out_padded / kOutputBlock) * s.offsets).count());
  w.shifts.resize(size_t(int8_shift_count(s.out_channels, s.offsets, s.in_channels)));
  return w;
}

void sum_offsets(PreparedWeights& w) {
  w.offset_sums.assign((Size(w.offsets) * w.out_padded).count(), 0);
  const int8_t* quad = w.int8.data();
  for (int32_t block = 0; block < w.out_padded; block += kOutputBlock) {
    for (int32_t k = 0; k < w.offsets; ++k) {
      int32_t* const sums = w.offset_sums.data() + int64_t(k) * w.out_padded + block;
      for (int32_t c = 0; c < w.in_padded; c += kInputQuad, quad += kOutputBlock * kInputQuad) {
        for (int32_t n = 0; n < kOutputBlock; ++n) {
          for (int32_t i = 0; i < kInputQuad; ++i) sums[n] += 128 * quad[n * kInputQuad + i];
        }
      }
    }
  }
}

PreparedWeights prepare_weights(const LayerWeights& given) {
  check_depth({given.offsets, given.in_channels, given.precision, given.layer});
  const int64_t depth = (Size(given.offsets) * given.in_channels).value();
  // What is checked is what is used: the caller's memory is read once.
  std::vector<float> values(given.weight, given.weight + (Size(depth) * given.out_channels).value());
  LayerWeights s = given;
  s.weight = values.data();
  check_weights(s);
  PreparedWeights w = sized_weights(s);
  const bool int8 = s.precision == ElementType::kInt8, rounded = s.precision != ElementType::kFloat32;
  const auto round = [&](float v) { return rounded ? half_to_float(float_to_half(v)) : v; };

  if (s.bias) {
    for (int32_t n = 0; n < s.out_channels; ++n) w.bias[size_t(n)] = round(s.bias[n]);
  }
  for (float& v : values) v = round(v);
  if (!int8) {
    pack_weight_float(values.data(), s.out_channels, s.offsets, s.in_channels, w.floats.data());
    return w;
  }
  std::vector<int8_t> quantised(values.size());
  for (int32_t n = 0; n < s.out_channels; ++n) {
    const float factor = int8_factor(s.weight_amax[n]);
    for (int64_t i = n * depth; i < (n + 1) * depth; ++i) {
      quantised[size_t(i)] = quantise_weight(values[size_t(i)], factor);
    }
  }
  pack_weight_int8(quantised.data(), s.out_channels, s.offsets, s.in_channels, w.int8.data());
  sum_offsets(w);
  plan_int8_groups(w.int8.data(), s.out_channels, s.offsets, s.in_channels, w.groups.data(), w.shifts.data());
  const bool shifted = std::any_of(w.groups.begin(), w.groups.end(), [](uint8_t g) { return g & kShifted; });
  if (!shifted) std::vector<int16_t>().swap(w.shifts);
  return w;
}

Size prepared_bytes(ElementType precision, int32_t out_channels, int32_t offsets, int32_t in_channels) {
  const Size per_channel = Size(round_up(out_channels, kOutputBlock)) * sizeof(float) * 2;
  if (precision != ElementType::kInt8)
    return per_channel + Size(packed_float_count(out_channels, offsets, in_channels)) * sizeof(float);
  return per_channel + packed_int8_bytes(out_channels, offsets, in_channels) +
         Size(int8_shift_count(out_channels, offsets, in_channels)) * sizeof(int16_t) +
         Size(round_up(out_channels, kOutputBlock)) * offsets * (sizeof(int32_t) + 1);
}

Size convolution_scratch(int32_t out_channels, int32_t offsets, int32_t in_channels) {
  const int64_t rows = tile_rows(offsets);
  return Size(sum_bytes(rows, round_up(out_channels, kOutputBlock))) +
         gemm_scratch_bytes(rows, offsets, round_up(in_channels, kInputQuad));
}

Overflow run_convolution(const Kernels& kernels, const ConvConfig& config, const PreparedWeights& w,
                         const FeatureRows& x, const MapView& map, int64_t rows, Finish finish,
                         ThreadPool& pool) {
  const bool int8 = w.precision == ElementType::kInt8;
  // Only input layers have a specified order of sums; elsewhere a processor without fma may round twice.
  const bool fused = w.in_channels <= kMostChainChannels;
  GatherGemm g{map,
               x.data,
               x.stride,
               w.in_padded,
               int8 ? static_cast<const void*>(w.int8.data()) : w.floats.data(),
               w.out_padded,
               x.nonnegative,
               w.offset_sums.data(),
               w.groups.data(),
               w.shifts.empty() ? nullptr : w.shifts.data(),
               x.half};
  finish.stride = w.out_padded;
  finish.channels = w.out_channels;
  finish.scale = int8 ? w.scale.data() : nullptr;
  finish.bias = w.bias.data();
  OverflowCount lost;
  const int64_t tile = tile_rows(w.offsets), sums_end = sum_bytes(tile, w.out_padded);
  pool.reserve_scratch(sums_end + gemm_scratch_bytes(tile, w.offsets, w.in_padded));
  // chunks of one tile: the last ones leave few threads without work
  pool.for_each(rows, kMostTileRows, [&](int64_t chunk_begin, int64_t chunk_end, int thread) {
    void* const sums = pool.scratch(thread);
    void* const scratch = static_cast<char*>(sums) + sums_end;
    Finish f = finish;
    Overflow chunk_lost{0, 0};
    for (int64_t begin = chunk_begin; begin < chunk_end; begin += tile) {
      const int64_t end = std::min(chunk_end, begin + tile);
      if (int8) {
        int32_t* int_sums = static_cast<int32_t*>(sums);
        config.int8(g, begin, end, int_sums, scratch);
        f.int_sums = int_sums;
      } else {
        float* float_sums = static_cast<float*>(sums);
        config.floats(g, begin, end, float_sums, scratch, fused);
        f.float_sums = float_sums;
      }
      const Overflow tile_lost = kernels.finish(f, begin, end);
      chunk_lost.before_add += tile_lost.before_add;
      chunk_lost.stored += tile_lost.stored;
    }
    lost.add(chunk_lost);
  });
  return lost.total();
}

Overflow run_finish(const Kernels& kernels, Finish finish, int64_t rows, ThreadPool& pool) {
  OverflowCount lost;
  pool.for_each(rows, kFinishedRows, [&](int64_t begin, int64_t end, int) {
    Finish f = finish;
    // rows of sums count from `begin`
    if (f.float_sums) f.float_sums += begin * f.stride;
    lost.add(kernels.finish(f, begin, end));
  });
  return lost.total();
}

namespace {

template <typename T>
void scatter_rows(const T* features, int64_t stride, const Site* sites, int64_t count, int32_t channels,
                  const Triple& shape, ThreadPool& pool, T* dense) {
  const int64_t cells = Size::of(shape).value();
  pool.for_each(count, 512, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const Site& s = sites[row];
      T* out = dense + int64_t(s.batch) * channels * cells + (int64_t(s.z) * shape[1] + s.y) * shape[2] + s.x;
      const T* in = features + row * stride;
      for (int32_t c = 0; c < channels; ++c) out[c * cells] = in[c];
    }
  });
}

}  // namespace

void scatter_dense(const void* features, int64_t element, int64_t stride, const Site* sites, int64_t count,
                   int32_t channels, int32_t batch, const Triple& shape, ThreadPool& pool, void* dense) {
  const int64_t bytes = (Size(batch) * channels * Size::of(shape) * element).value();
  pool.for_each(bytes, int64_t(1) << 20, [&](int64_t begin, int64_t end, int) {
    std::memset(static_cast<char*>(dense) + begin, 0, size_t(end - begin));
  });
  if (element == 2) {
    scatter_rows(static_cast<const uint16_t*>(features), stride, sites, count, channels, shape, pool,
                 static_cast<uint16_t*>(dense));
  } else {
    scatter_rows(static_cast<const uint32_t*>(features), stride, sites, count, channels, shape, pool,
                 static_cast<uint32_t*>(dense));
  }
}

}  // namespace scn
